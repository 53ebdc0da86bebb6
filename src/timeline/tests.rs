//! Where marks are, and what holds for any picture. What pictures look like as a whole is in `tests/golden`.

use k8s_openapi::jiff::SignedDuration;
use proptest::prelude::*;

use super::*;

fn now() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().expect("a time")
}

fn mark(seconds_ago: i64, kind: Kind, cause: &str) -> Mark {
    Mark { time: now() - SignedDuration::from_secs(seconds_ago), kind, cause: cause.to_owned() }
}

fn look(width: usize) -> Look {
    Look { width, colour: false, unicode: false }
}

fn lane(marks: Vec<Mark>) -> Lane {
    Lane { title: "data".to_owned(), marks }
}

/// The lines of a picture without the title, up to the ruler.
fn lines(marks: Vec<Mark>, width: usize) -> Vec<String> {
    let drawn = draw(&[lane(marks)], look(width), now());
    drawn.lines().skip(1).take_while(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn hourly_snapshots_have_a_column_each_and_the_newest_is_on_the_right() {
    let marks = (0..24).map(|hour| mark(hour * HOUR, Kind::Kept, "hourly=24")).collect();
    assert_eq!(
        lines(marks, 80),
        [
            " hourly=24 24  * * * * * * * * * * * * * * * * * * * * * * * *".replacen("  *", " |*", 1),
            "              |24h-21h---18h---15h---12h---9h----6h----3h--now".to_owned(),
        ]
    );
}

#[test]
fn each_part_of_the_line_begins_where_the_one_before_ends() {
    for room in [22, 40, 65, 105, 200, 400] {
        for oldest in [0, HOUR - 1, HOUR, DAY - 1, DAY, 7 * DAY, 28 * DAY, YEAR, 10 * YEAR, 1000 * YEAR] {
            let axis = Axis::new(oldest, room);
            assert!(axis.width() <= room && axis.parts[0].columns.start == 0, "{room} {oldest}");
            for pair in axis.parts.windows(2) {
                assert_eq!(pair[0].columns.end, pair[1].columns.start);
                assert_eq!(pair[0].ages.start, pair[1].ages.end);
                assert!(!pair[1].columns.is_empty());
                // What is as old as a part begins is of the part before it.
                assert_eq!(axis.column(pair[1].ages.end), pair[1].columns.start - 1);
                assert_eq!(axis.column(pair[1].ages.end - 1), pair[1].columns.start);
            }
            assert_eq!(axis.column(0), axis.width() - 1);
            let ends_before =
                PARTS.iter().rev().find(|((end, _), _)| *end <= oldest).map(|((end, _), _)| *end);
            let oldest_part = axis.parts[0].ages.clone();
            assert!(oldest_part.contains(&oldest) || oldest_part.end == 100 * YEAR);
            assert!(oldest_part.end == 100 * YEAR || ends_before.is_none_or(|end| end <= oldest_part.start));
        }
    }
}

#[test]
fn several_in_a_column_are_counted() {
    let of =
        |number: i64| (0..number).map(|second| mark(second, Kind::Kept, "within=1d")).collect::<Vec<_>>();
    let last = |marks: Vec<Mark>| lines(marks, 80)[0].chars().last();
    assert_eq!(last(of(1)), Some('*'));
    assert_eq!(last(of(2)), Some('2'));
    assert_eq!(last(of(9)), Some('9'));
    assert_eq!(last(of(10)), Some('+'));
    let says = |number| draw(&[lane(of(number))], look(80), now()).contains("2 to 9: so many in one column");
    assert!(says(2) && !says(1));
}

#[test]
fn rows_are_by_kind_and_then_by_their_newest() {
    let marks = vec![
        mark(90_000, Kind::Goes, "will go: no rule keeps it"),
        mark(100, Kind::NotReady, "not ready yet"),
        mark(50_000, Kind::Held, "held"),
        mark(80_000, Kind::Kept, "daily=7"),
        mark(4_000, Kind::Kept, "hourly=2"),
        mark(7_600, Kind::Kept, "hourly=2"),
        mark(70_000, Kind::Failing, "not ready yet"),
    ];
    let lines = lines(marks, 80);
    let begins: Vec<String> =
        lines.iter().map(|line| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(begins[..5], ["hourly=2 2 |", "daily=7 1 |", "held 1 |", "not ready yet", "not ready yet"]);
    assert!(
        lines[2].contains('H') && lines[3].contains('o') && lines[4].contains('!') && lines[5].contains('x')
    );
    // A cause that is too long goes on below.
    assert_eq!((lines[5].trim_end(), lines[6].as_str()), (lines[5].as_str(), " it"));
}

#[test]
fn what_is_dated_in_the_future_is_at_the_end_and_what_is_ancient_at_the_beginning() {
    let marks = vec![mark(-5_000, Kind::Kept, "dated in the future"), mark(300 * YEAR, Kind::Kept, "all")];
    let lines = lines(marks, 80);
    assert!(lines[0].trim_end().ends_with('*') && lines[0].len() == 80, "{lines:?}");
    assert_eq!(lines[1].trim_end().find('*'), lines[0].find('|'));
    assert!(lines[2].contains("|100y"), "{lines:?}");
    let unknown = Mark { time: Timestamp::MAX, kind: Kind::Kept, cause: "dated in the future".to_owned() };
    assert!(draw(&[lane(vec![unknown])], look(80), now()).contains('*'));
}

#[test]
fn colour_and_unicode_change_only_how_it_looks() {
    let marks = vec![
        mark(10, Kind::Kept, "hourly=2"),
        mark(20, Kind::Held, "held"),
        mark(2 * DAY, Kind::Goes, "will go: no rule keeps it"),
    ];
    let lanes = [lane(marks)];
    let plain = draw(&lanes, look(80), now());
    assert!(plain.is_ascii() && !plain.contains('\u{1b}'));
    let unicode = draw(&lanes, Look { unicode: true, ..look(80) }, now());
    let letters = unicode.replace('●', "*").replace('◆', "H").replace('×', "x");
    assert_eq!(letters.replace(['│', '┴'], "|").replace('─', "-"), plain);
    let colour = draw(&lanes, Look { colour: true, ..look(80) }, now());
    let mut without = String::new();
    for (index, part) in colour.split('\u{1b}').enumerate() {
        without.push_str(if index == 0 { part } else { part.split_once('m').expect("a colour").1 });
    }
    assert_eq!(without, plain);
    assert!(colour.contains("\u{1b}[32m*\u{1b}[0m") && colour.contains("\u{1b}[33mx\u{1b}[0m"), "{colour}");
}

fn any_marks() -> impl Strategy<Value = Vec<Mark>> {
    let kind = prop_oneof![Just(Kind::Kept), Just(Kind::Held), Just(Kind::Goes), Just(Kind::NotReady)];
    let cause = prop_oneof!["(hourly|daily|weekly)=[0-9]{1,3}", "\\PC{0,60}", "[a-z -]{0,80}"];
    let age = prop_oneof![-10_000i64..100, 0i64..100_000, 0i64..4_000_000_000];
    proptest::collection::vec((age, kind, cause), 0..40)
        .prop_map(|marks| marks.into_iter().map(|(age, kind, cause)| mark(age, kind, &cause)).collect())
}

proptest! {
    #[test]
    fn every_snapshot_is_drawn_within_the_width(marks in any_marks(), width in 0usize..300) {
        let drawn = draw(&[lane(marks.clone())], look(width), now());
        for line in drawn.lines() {
            prop_assert!(text::width(line) <= width.max(LEAST), "{line:?}");
        }
        let rows = rows(&lane(marks.clone()), now()).iter().map(|row| row.ages.len()).sum::<usize>();
        prop_assert_eq!(rows, marks.len());
        for oldest in marks.iter().map(|mark| now().duration_since(mark.time).as_secs()) {
            let axis = Axis::new(oldest, width.max(20));
            prop_assert_eq!(axis.cells(&[oldest.max(0)]).iter().sum::<usize>(), 1);
        }
    }

    /// Of two snapshots the older one is never on the right.
    #[test]
    fn time_goes_to_the_right(ages in proptest::collection::vec(0i64..4_000_000_000, 2..20), room in 20usize..300) {
        let axis = Axis::new(ages.iter().copied().max().unwrap_or(0), room);
        let mut ages = ages;
        ages.sort_unstable();
        prop_assert!(ages.windows(2).all(|pair| axis.column(pair[0]) >= axis.column(pair[1])));
    }
}
