//! What users may add to the pod of a drill: a part of a pod template, merged strictly. Pure.
//!
//! A field that is not listed here is an error, and so is one that would change what makes a drill a drill: its
//! volume, its names and labels, that it fails once and for all. Without that a misspelt field would be dropped in
//! silence, and a drill would pass that read something else.

use serde_json::{Map, Value};

use super::job::{CONTAINER, PATH, VOLUME};

/// The fields of the pod that a template may set.
const POD: [&str; 10] = [
    "affinity",
    "imagePullSecrets",
    "nodeSelector",
    "priorityClassName",
    "runtimeClassName",
    "schedulerName",
    "securityContext",
    "serviceAccountName",
    "tolerations",
    "topologySpreadConstraints",
];

/// The fields of the container that it may set.
const OF_CONTAINER: [&str; 7] =
    ["env", "envFrom", "imagePullPolicy", "resources", "securityContext", "volumeMounts", "workingDir"];

/// The kinds of volumes that it may add: what configures a check, and room to work in.
const VOLUMES: [&str; 4] = ["configMap", "emptyDir", "projected", "secret"];

/// What to add to a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Template {
    labels: Map<String, Value>,
    annotations: Map<String, Value>,
    pod: Map<String, Value>,
    volumes: Vec<Value>,
    container: Map<String, Value>,
}

impl Template {
    /// Reads a template, in YAML or JSON: `metadata` and `spec` of a pod.
    ///
    /// # Errors
    /// What is wrong, in words, with the path of the field.
    pub fn parse(text: &str) -> Result<Self, String> {
        let read: Value = serde_saphyr::from_str(text).map_err(|error| format!("it is no YAML: {error}"))?;
        let mut template = Template::default();
        if read.is_null() {
            return Ok(template);
        }
        for (key, value) in object(read, "the template")? {
            match key.as_str() {
                // As in a file that kubectl would take.
                "apiVersion" | "kind" => {}
                "metadata" => {
                    for (key, value) in object(value, "metadata")? {
                        match key.as_str() {
                            "labels" => {
                                template.labels = own_keys(object(value, "metadata.labels")?, "labels")?
                            }
                            "annotations" => {
                                template.annotations =
                                    own_keys(object(value, "metadata.annotations")?, "annotations")?;
                            }
                            _ => return Err(refused("metadata", &key, &["labels", "annotations"])),
                        }
                    }
                }
                "spec" => template.read_spec(object(value, "spec")?)?,
                _ => return Err(refused("", &key, &["metadata", "spec"])),
            }
        }
        Ok(template)
    }

    fn read_spec(&mut self, spec: Map<String, Value>) -> Result<(), String> {
        for (key, value) in spec {
            match key.as_str() {
                "containers" => {
                    let Value::Array(containers) = value else {
                        return Err(not("spec.containers", "a list"));
                    };
                    let mut containers = containers.into_iter();
                    let (Some(only), None) = (containers.next(), containers.next()) else {
                        return Err(format!("spec.containers has to have one container, {CONTAINER}"));
                    };
                    self.read_container(object(only, "spec.containers[0]")?)?;
                }
                "volumes" => {
                    let Value::Array(volumes) = value else { return Err(not("spec.volumes", "a list")) };
                    for (index, volume) in volumes.iter().enumerate() {
                        check_volume(volume, index)?;
                    }
                    self.volumes = volumes;
                }
                key if POD.contains(&key) => {
                    self.pod.insert(key.to_owned(), value);
                }
                key => return Err(refused("spec", key, &[&POD[..], &["containers", "volumes"]].concat())),
            }
        }
        Ok(())
    }

    fn read_container(&mut self, container: Map<String, Value>) -> Result<(), String> {
        for (key, value) in container {
            match key.as_str() {
                "name" if value == CONTAINER => {}
                "name" => {
                    return Err(format!("spec.containers[0].name: the container is called {CONTAINER}"));
                }
                "volumeMounts" => {
                    let Value::Array(mounts) = &value else {
                        return Err(not("spec.containers[0].volumeMounts", "a list"));
                    };
                    let is_ours = |mount: &&Value| {
                        let path = mount["mountPath"].as_str().unwrap_or_default();
                        let path = path.trim_end_matches('/');
                        mount["name"] == VOLUME || path == PATH || path.starts_with(&format!("{PATH}/"))
                    };
                    if mounts.iter().any(|mount| is_ours(&mount)) {
                        return Err(format!(
                            "spec.containers[0].volumeMounts: the volume {VOLUME} and the path {PATH} are the snapshot's"
                        ));
                    }
                    self.container.insert(key, value);
                }
                key if OF_CONTAINER.contains(&key) => {
                    self.container.insert(key.to_owned(), value);
                }
                "image" | "command" | "args" => {
                    return Err(format!(
                        "spec.containers[0].{key}: set VERIFY_IMAGE and VERIFY_COMMAND instead"
                    ));
                }
                key => return Err(refused("spec.containers[0]", key, &OF_CONTAINER)),
            }
        }
        Ok(())
    }

    /// Adds it to a pod: objects are merged, and everything else replaces what is there, but for lists of volumes,
    /// which are added to.
    pub(super) fn apply(&self, pod: &mut Value) {
        for (part, added) in [("labels", &self.labels), ("annotations", &self.annotations)] {
            if !added.is_empty() {
                merge(&mut pod["metadata"][part], &Value::Object(added.clone()));
            }
        }
        merge(&mut pod["spec"], &Value::Object(self.pod.clone()));
        if let Some(volumes) = pod["spec"]["volumes"].as_array_mut() {
            volumes.extend(self.volumes.iter().cloned());
        }
        let container = &mut pod["spec"]["containers"][0];
        for (key, value) in &self.container {
            match (key.as_str(), value) {
                ("volumeMounts", Value::Array(mounts)) => match container["volumeMounts"].as_array_mut() {
                    Some(there) => there.extend(mounts.iter().cloned()),
                    None => container["volumeMounts"] = value.clone(),
                },
                _ => merge(&mut container[key], value),
            }
        }
    }
}

fn merge(into: &mut Value, added: &Value) {
    match (into, added) {
        (Value::Object(into), Value::Object(added)) => {
            for (key, value) in added {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, added) => *into = added.clone(),
    }
}

fn object(value: Value, path: &str) -> Result<Map<String, Value>, String> {
    match value {
        Value::Object(fields) => Ok(fields),
        // All of its fields are comments.
        Value::Null => Ok(Map::new()),
        _ => Err(not(path, "an object")),
    }
}

fn not(path: &str, what: &str) -> String {
    format!("{path} has to be {what}")
}

fn refused(path: &str, key: &str, accepted: &[&str]) -> String {
    let dot = if path.is_empty() { "" } else { "." };
    let key = crate::text::foreign(key);
    format!("{path}{dot}{key} cannot be set; accepted are {}", accepted.join(", "))
}

/// Labels and annotations that are not this program's.
fn own_keys(keys: Map<String, Value>, part: &str) -> Result<Map<String, Value>, String> {
    let is_ours = |key: &&String| {
        key.starts_with("volume-snapshotter/")
            || key.starts_with("app.kubernetes.io/")
            || key.contains("job-name")
            || key.contains("controller-uid")
    };
    match keys.keys().find(is_ours) {
        Some(key) => Err(format!("metadata.{part}.{} is set by the drill", crate::text::foreign(key))),
        None => Ok(keys),
    }
}

fn check_volume(volume: &Value, index: usize) -> Result<(), String> {
    let path = format!("spec.volumes[{index}]");
    let fields = volume.as_object().ok_or_else(|| not(&path, "an object"))?;
    if volume["name"] == VOLUME {
        return Err(format!("{path}: the volume {VOLUME} is the snapshot's"));
    }
    match fields.keys().find(|key| *key != "name" && !VOLUMES.contains(&key.as_str())) {
        Some(key) => Err(refused(&path, key, &VOLUMES)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Value {
        json!({
            "metadata": {"labels": {"volume-snapshotter/drill": "u"}},
            "spec": {
                "restartPolicy": "Never",
                "securityContext": {"runAsNonRoot": true, "runAsUser": 65532},
                "containers": [{
                    "name": "verify",
                    "securityContext": {"capabilities": {"drop": ["ALL"]}},
                    "volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": true}],
                }],
                "volumes": [{"name": "data", "ephemeral": {}}],
            },
        })
    }

    #[test]
    fn what_is_given_is_merged_and_the_rest_stays() {
        let template = Template::parse(
            "spec:
  nodeSelector: {disk: fast}
  securityContext: {runAsUser: 999, fsGroup: 999}
  containers:
    - name: verify
      securityContext: {capabilities: {add: [DAC_READ_SEARCH]}}
      env: [{name: PGDATA, value: /tmp/x}]
      volumeMounts: [{name: room, mountPath: /tmp}]
  volumes:
    - name: room
      emptyDir: {}
",
        )
        .expect("a template");
        let mut pod = pod();
        template.apply(&mut pod);
        let spec = &pod["spec"];
        assert_eq!(spec["securityContext"], json!({"runAsNonRoot": true, "runAsUser": 999, "fsGroup": 999}));
        assert_eq!(spec["nodeSelector"], json!({"disk": "fast"}));
        let container = &spec["containers"][0];
        assert_eq!(
            container["securityContext"],
            json!({"capabilities": {"drop": ["ALL"], "add": ["DAC_READ_SEARCH"]}})
        );
        assert_eq!(container["volumeMounts"].as_array().map(Vec::len), Some(2));
        assert_eq!(container["volumeMounts"][0]["readOnly"], true);
        assert_eq!(spec["volumes"].as_array().map(Vec::len), Some(2));
        assert_eq!((&spec["restartPolicy"], &container["name"]), (&json!("Never"), &json!("verify")));
    }

    #[test]
    fn nothing_is_as_good_as_comments() {
        for text in ["", "# spec:", "spec:", "spec:\n  containers:\n    - name: verify\n", "metadata:\n"] {
            let mut with = pod();
            Template::parse(text).expect("a template").apply(&mut with);
            assert_eq!(with, pod(), "{text:?}");
        }
    }

    #[test]
    fn what_is_misspelt_or_not_the_users_is_an_error() {
        for (text, said) in [
            ("sepc: {}", "sepc cannot be set; accepted are metadata, spec"),
            ("spec: {nodeSelectr: {}}", "spec.nodeSelectr cannot be set"),
            ("spec: {restartPolicy: Always}", "spec.restartPolicy cannot be set"),
            ("spec: {automountServiceAccountToken: true}", "spec.automountServiceAccountToken cannot be set"),
            ("spec: {hostPID: true}", "spec.hostPID cannot be set"),
            ("spec: {containers: []}", "one container"),
            ("spec: {containers: [{name: verify}, {name: b}]}", "one container"),
            ("spec: {containers: [{name: other}]}", "the container is called verify"),
            ("spec: {containers: [{image: x}]}", "VERIFY_IMAGE"),
            ("spec: {containers: [{volumeDevices: []}]}", "volumeDevices cannot be set"),
            ("spec: {containers: [{volumeMounts: [{name: data, mountPath: /x}]}]}", "are the snapshot's"),
            ("spec: {containers: [{volumeMounts: [{name: x, mountPath: /data/}]}]}", "are the snapshot's"),
            ("spec: {containers: [{volumeMounts: [{name: x, mountPath: /data/sub}]}]}", "are the snapshot's"),
            ("spec: {volumes: [{name: data, emptyDir: {}}]}", "is the snapshot's"),
            ("spec: {volumes: [{name: x, hostPath: {path: /}}]}", "spec.volumes[0].hostPath cannot be set"),
            (
                "spec: {volumes: [{name: x, persistentVolumeClaim: {}}]}",
                "persistentVolumeClaim cannot be set",
            ),
            ("metadata: {labels: {volume-snapshotter/drill: x}}", "is set by the drill"),
            ("metadata: {name: x}", "metadata.name cannot be set"),
            ("spec: 7", "spec has to be an object"),
            ("spec: [", "no YAML"),
        ] {
            let problem = Template::parse(text).expect_err(text);
            assert!(problem.contains(said), "{text}: {problem}");
        }
    }
}
