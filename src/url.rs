//! Foreign http and https URLs, of which only scheme, host and port may be said: path, query and user are
//! secret, for whoever knows them can speak in their owner's name.
//!
//! Pure. [`crate::notify`] sends requests to them.

use std::fmt;

use http::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// A path segment or a value of a query that is shorter is not looked for in foreign text: it would be found
/// in any.
const SHORTEST_SECRET: usize = 6;

/// An http or https URL. `Debug` and `Display` show its origin alone.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl {
    is_https: bool,
    /// Host, and port where it is not the scheme's own.
    authority: String,
    /// Name and password, decoded.
    user: Option<(String, String)>,
    /// Path and query; begins with a slash.
    target: String,
}

/// Why a text is not accepted. Does not repeat any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error(
        "not a URL; accepted are http:// and https:// URLs with a host, special characters percent-encoded"
    )]
    NoUrl,
    #[error("the URL's scheme is not supported; http:// and https:// are accepted")]
    Scheme,
    #[error(
        "what stands in braces is not known; accepted in path and query are {}; other braces are written %7B and %7D",
        Placeholder::ALL.map(|placeholder| placeholder.written()).join(", ")
    )]
    Placeholder,
}

/// What stands for itself in every part of a URL; all else is percent-encoded.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What a ping's URL can hold in braces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placeholder {
    Exit,
    Status,
    State,
    DurationMs,
    DurationS,
    Message,
    Schedule,
    Shard,
    Rid,
}

impl Placeholder {
    pub const ALL: [Placeholder; 9] = [
        Placeholder::Exit,
        Placeholder::Status,
        Placeholder::State,
        Placeholder::DurationMs,
        Placeholder::DurationS,
        Placeholder::Message,
        Placeholder::Schedule,
        Placeholder::Shard,
        Placeholder::Rid,
    ];

    /// As it is written in a URL.
    pub fn written(self) -> &'static str {
        match self {
            Placeholder::Exit => "{exit}",
            Placeholder::Status => "{status}",
            Placeholder::State => "{state}",
            Placeholder::DurationMs => "{duration_ms}",
            Placeholder::DurationS => "{duration_s}",
            Placeholder::Message => "{message}",
            Placeholder::Schedule => "{schedule}",
            Placeholder::Shard => "{shard}",
            Placeholder::Rid => "{rid}",
        }
    }

    /// Whether it tells a failure from a success.
    fn is_outcome(self) -> bool {
        matches!(self, Placeholder::Exit | Placeholder::Status | Placeholder::State)
    }
}

/// The URL of a ping, with placeholders in its path and query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PingUrl(SecretUrl);

impl PingUrl {
    /// # Errors
    /// As [`SecretUrl::parse`], and if something else than a placeholder stands in braces.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let url = SecretUrl::parse(text)?;
        let mut rest = url.target.clone();
        for placeholder in Placeholder::ALL {
            rest = rest.replace(placeholder.written(), "");
        }
        match rest.contains(['{', '}']) {
            true => Err(UrlError::Placeholder),
            false => Ok(PingUrl(url)),
        }
    }

    pub fn has(&self, placeholder: Placeholder) -> bool {
        self.0.target.contains(placeholder.written())
    }

    /// Whether who is pinged learns from the URL that a run failed. If not, every ping means success.
    pub fn tells_failures(&self) -> bool {
        Placeholder::ALL.into_iter().any(|placeholder| placeholder.is_outcome() && self.has(placeholder))
    }

    /// The URL with a value, percent-encoded, in the place of each placeholder.
    ///
    /// # Errors
    /// If the result is too long for a URL.
    pub fn filled(&self, value: impl Fn(Placeholder) -> String) -> Result<SecretUrl, UrlError> {
        let mut filled = String::new();
        let mut rest = self.0.target.as_str();
        while let Some(at) = rest.find('{') {
            let (before, behind) = rest.split_at(at);
            filled.push_str(before);
            let placeholder =
                Placeholder::ALL.into_iter().find(|placeholder| behind.starts_with(placeholder.written()));
            let placeholder = placeholder.ok_or(UrlError::Placeholder)?;
            filled.extend(utf8_percent_encode(&value(placeholder), ENCODED));
            rest = &behind[placeholder.written().len()..];
        }
        filled.push_str(rest);
        self.0.with_target(&filled)
    }
}

impl fmt::Display for PingUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl SecretUrl {
    /// # Errors
    /// If it is not a URL, or of another scheme.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let uri: Uri = text.parse().map_err(|_| UrlError::NoUrl)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(UrlError::NoUrl);
        };
        let is_https = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(UrlError::Scheme),
        };
        if authority.host().is_empty() {
            return Err(UrlError::NoUrl);
        }
        let (user, authority) = match authority.as_str().rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority.as_str()),
        };
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let user = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            (decoded(name), decoded(password))
        });
        let target = uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        Ok(SecretUrl { is_https, authority: authority.to_owned(), user, target })
    }

    /// Scheme, host and port, which may be said: `https://hc-ping.com`.
    pub fn origin(&self) -> String {
        let scheme = if self.is_https { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }

    pub fn is_https(&self) -> bool {
        self.is_https
    }

    /// Name and password, if the URL has them.
    pub fn user(&self) -> Option<(&str, &str)> {
        self.user.as_ref().map(|(name, password)| (name.as_str(), password.as_str()))
    }

    /// Path and query. Secret.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The same place with another path and query.
    ///
    /// # Errors
    /// If they cannot be part of a URL.
    pub fn with_target(&self, target: &str) -> Result<Self, UrlError> {
        let begins_well = target.starts_with('/');
        match target.parse::<http::uri::PathAndQuery>() {
            Ok(target) if begins_well => Ok(SecretUrl { target: target.as_str().to_owned(), ..self.clone() }),
            _ => Err(UrlError::NoUrl),
        }
    }

    /// A place below this one: `path`, which begins with a slash, behind the path that there is. The query stays.
    ///
    /// # Errors
    /// If it cannot be part of a URL.
    pub fn below(&self, path: &str) -> Result<Self, UrlError> {
        let (base, query) = match self.target.split_once('?') {
            Some((base, query)) => (base, format!("?{query}")),
            None => (self.target.as_str(), String::new()),
        };
        self.with_target(&format!("{}{path}{query}", base.trim_end_matches('/')))
    }

    /// Whether a text holds something of what is secret.
    fn is_betrayed_by(&self, text: &str) -> bool {
        let is_in = |secret: &str| secret.len() >= SHORTEST_SECRET && text.contains(secret);
        let of_user = self.user.iter().flat_map(|(name, password)| [name.as_str(), password.as_str()]);
        let parts = self.target.split(['/', '?', '&', '=']).chain(of_user);
        parts.into_iter().any(|part| is_in(part) || is_in(&percent_decode_str(part).decode_utf8_lossy()))
    }

    /// A text that came from elsewhere, safe to print: nothing of it if it holds a part of what is secret.
    pub fn conceal(&self, text: &str) -> String {
        match self.is_betrayed_by(text) {
            true => "(not shown, for it repeats a part of the URL)".to_owned(),
            false => crate::text::foreign(text),
        }
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin())
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretUrl({})", self.origin())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> SecretUrl {
        SecretUrl::parse(text).expect(text)
    }

    #[test]
    fn a_url_is_taken_apart() {
        let whole = url("https://me:p%40ss@hc-ping.example:8443/5e0a-secret/{exit}?msg={message}");
        assert_eq!(whole.origin(), "https://hc-ping.example:8443");
        assert_eq!(whole.user(), Some(("me", "p@ss")));
        assert_eq!(whole.target(), "/5e0a-secret/{exit}?msg={message}");
        assert!(whole.is_https());
        let bare = url("http://[::1]:9091");
        assert_eq!((bare.origin().as_str(), bare.target(), bare.user()), ("http://[::1]:9091", "/", None));
        assert!(!bare.is_https());
        assert_eq!(url("https://x/?a=b#c").target(), "/?a=b");
    }

    #[test]
    fn what_is_not_a_url_is_refused_in_words_that_do_not_repeat_it() {
        for (text, error) in [
            ("", UrlError::NoUrl),
            ("hc-ping.com/s3cr3t", UrlError::NoUrl),
            ("/s3cr3t", UrlError::NoUrl),
            ("https://", UrlError::NoUrl),
            ("https:///s3cr3t", UrlError::NoUrl),
            ("https://host/s3cr3t with spaces", UrlError::NoUrl),
            ("https://{exit}.example/s3cr3t", UrlError::NoUrl),
            ("https://host/s3cr3t\n", UrlError::NoUrl),
            ("ftp://host/s3cr3t", UrlError::Scheme),
            ("file:///s3cr3t", UrlError::NoUrl),
        ] {
            let refused = SecretUrl::parse(text).expect_err(text);
            assert_eq!(refused, error, "{text}");
            assert!(!refused.to_string().contains("s3cr3t"));
        }
    }

    #[test]
    fn nothing_shows_what_is_secret() {
        let secret = url("https://name-x:s3cr3t-1@host/s3cr3t-2/{exit}?key=s3cr3t-3");
        assert_eq!(format!("{secret} {secret:?}"), "https://host SecretUrl(https://host)");
        for text in [
            "cannot GET /s3cr3t-2/0",
            "bad key s3cr3t-3",
            "Unknown user name-x",
            "wrong password s3cr3t-1",
            "see https://host/s3cr3t-2/{exit}?key=s3cr3t-3",
        ] {
            assert_eq!(secret.conceal(text), "(not shown, for it repeats a part of the URL)", "{text}");
        }
        assert_eq!(
            url("https://host/a%20secret%20path").conceal("no 'a secret path' here").find("path"),
            None
        );
        // What is short is in every text.
        assert_eq!(url("https://host/p/ab").conceal("cannot grab\tit"), "cannot grab it");
    }

    #[test]
    fn another_target_stays_at_the_same_place() {
        let pushed = url("https://me:it@host/base").with_target("/base/metrics/job/x").expect("a path");
        assert_eq!(pushed.target(), "/base/metrics/job/x");
        assert_eq!((pushed.origin().as_str(), pushed.user()), ("https://host", Some(("me", "it"))));
        for odd in ["", "no-slash", "/with space", "/line\nbreak"] {
            assert!(pushed.with_target(odd).is_err(), "{odd:?}");
        }
    }

    #[test]
    fn a_path_is_put_behind_the_one_that_there_is() {
        for (text, below) in [
            ("http://host:9091", "/metrics/job/x"),
            ("http://host:9091/", "/metrics/job/x"),
            ("https://me:it@host/push/", "/push/metrics/job/x"),
            ("https://host/push?token=s3cr3t", "/push/metrics/job/x?token=s3cr3t"),
        ] {
            assert_eq!(url(text).below("/metrics/job/x").expect(text).target(), below);
        }
        assert!(url("http://host").below("/with space").is_err());
    }

    fn value(placeholder: Placeholder) -> String {
        match placeholder {
            Placeholder::Exit => "0".to_owned(),
            Placeholder::Message => "1 of 1 claim & 100 % für {exit}?\n".to_owned(),
            other => other.written().trim_matches(['{', '}']).to_owned(),
        }
    }

    #[test]
    fn placeholders_are_filled_in_and_encoded() {
        for (text, filled) in [
            ("https://host/uuid", "/uuid"),
            ("https://host/uuid/{exit}?rid={rid}", "/uuid/0?rid=rid"),
            (
                "https://host/push/x?status={status}&msg={message}&ping={duration_ms}",
                "/push/x?status=status&msg=1%20of%201%20claim%20%26%20100%20%25%20f%C3%BCr%20%7Bexit%7D%3F%0A\
                 &ping=duration_ms",
            ),
            ("https://host/{exit}{exit}/%7Bexit%7D", "/00/%7Bexit%7D"),
            (
                "https://host/{schedule}/{shard}?s={state}&d={duration_s}",
                "/schedule/shard?s=state&d=duration_s",
            ),
        ] {
            let url = PingUrl::parse(text).expect(text);
            let filled_url = url.filled(value).expect(text);
            assert_eq!((filled_url.target(), url.to_string().as_str()), (filled, "https://host"));
        }
    }

    #[test]
    fn a_url_tells_failures_only_if_it_has_a_place_for_them() {
        for (text, tells) in [
            ("https://host/uuid", false),
            ("https://host/uuid?m={message}&d={duration_ms}", false),
            ("https://host/uuid/{exit}", true),
            ("https://host/uuid?status={status}", true),
            ("https://host/uuid?state={state}", true),
        ] {
            assert_eq!(PingUrl::parse(text).expect(text).tells_failures(), tells, "{text}");
        }
    }

    #[test]
    fn what_is_no_placeholder_is_refused_without_being_repeated() {
        for text in [
            "https://h/{exti}",
            "https://h/{exit",
            "https://h/exit}",
            "https://h/?a={}",
            "https://h/{{exit}}",
        ] {
            let error = PingUrl::parse(text).expect_err(text);
            assert_eq!(error, UrlError::Placeholder, "{text}");
            let said = error.to_string();
            assert!(said.contains("{exit}, {status}") && !said.contains("exti"), "{said}");
        }
    }
}
