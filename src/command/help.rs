//! What the help texts say besides commands and flags. `{program}` is how the program is called.

use std::fmt::Write as _;

use crate::{settings::VARIABLES, text};

/// How wide the list of settings is.
const WIDTH: usize = 80;

/// Where the meaning of a setting begins.
const COLUMN: usize = 28;

/// What the program does.
pub(super) const PROGRAM: &str = "\
Takes a VolumeSnapshot of each chosen PersistentVolumeClaim, waits until it is ready, and only then deletes \
the older ones that the retention policy no longer wants. Without a command it does that once and exits; a \
CronJob repeats it.";

/// What stands behind the commands of the program, with all settings of a run.
pub(super) fn after() -> String {
    let mut settings = String::new();
    for variable in VARIABLES {
        let meaning = match variable.default {
            "" => variable.meaning.to_owned(),
            default => format!("{} [default: {default}]", variable.meaning),
        };
        let mut name = variable.name;
        if name.len() + 4 > COLUMN {
            let _ = writeln!(settings, "  {name}");
            name = "";
        }
        for line in text::wrapped(&meaning, WIDTH - COLUMN) {
            let _ = writeln!(settings, "  {name:width$}{line}", width = COLUMN - 2);
            name = "";
        }
    }
    format!("{BEFORE_SETTINGS}\n{settings}{AFTER_SETTINGS}")
}

const BEFORE_SETTINGS: &str = "\
All settings of a run are environment variables. One of the first three
must be set.
";

const AFTER_SETTINGS: &str = "
In a pod it uses the ServiceAccount; elsewhere the kubeconfig, as kubectl does.

Exit codes:
  0    every claim that was due has a new ready snapshot, and what had to go is
       gone
  1    some claim has none; another attempt may help
  2    some claim has none; trying again cannot help (settings, permissions,
       no snapshot API, no such claim, nothing selected)
  3    all snapshots are ready, but some old ones could not be deleted
  143  told to stop (SIGTERM)

Example:
  SNAPSHOT_PVC_NAMES=data SNAPSHOT_DRY_RUN=true {program}";

/// What `list` does.
pub(super) const LIST: &str = "\
Shows the snapshots of the schedules here, newest first, and why each stays or goes: by the settings of the \
CronJobs of this program that it finds, each snapshot by those of its own schedule. Flags and variables win \
over them. Of each claim it also shows what a restore would choose, whoever made it. A group is shown with its \
members under it. It changes nothing.";

/// What stands behind the flags of `list`.
pub(super) const LIST_AFTER: &str = "\
Columns:
  STATE      ok, held, waiting (not ready yet), error, terminating, stuck (for
             more than an hour)
  RETENTION  why it stays, or that it will go; as things are now: the next run
             makes a new snapshot first, and counts that too; 'would go': by
             rules that are given or assumed, or of a suspended schedule

--timeline draws a lane for each claim, and in it a row for each rule: how many
snapshots it keeps, and a mark for each, the newest on the right. A snapshot is
in the row of the first rule that keeps it. The picture is as wide as the
terminal, elsewhere as COLUMNS says or 80 columns, and in ASCII unless the locale
is one of UTF-8.

Exit codes:
  0  done
  1  trouble with the API server; another attempt may help
  2  the command line, the settings or permissions are wrong, or there is
     neither a claim of that name nor a snapshot of one

Examples:
  {program} list
  {program} list data -n shop -o wide
  {program} list --retention hourly=24,daily=7 data
  {program} list data --timeline
  {program} list -o json | jq '.items[] | select(.ready | not).snapshot'";

/// What `simulate` does.
pub(super) const SIMULATE: &str = "\
Says how many snapshots of a claim a policy holds at most and once it is steady, how old the oldest is, and how \
many are made and deleted; and draws what is there in the end. It asks no cluster: the runs are at simulated \
times from 2026-01-01 on, and each prunes as a real one does.";

/// What stands behind the flags of `simulate`.
pub(super) const SIMULATE_AFTER: &str = "\
Every run is taken to succeed. Held snapshots, and those of a deletion that hangs,
come on top of the numbers.

Exit codes:
  0  done
  2  the command line is wrong, or it would take too long

Examples:
  {program} simulate --retention hourly=24,daily=7,weekly=4
  {program} simulate --retention daily=14,yearly=5 --every 1d --for 10y
  {program} simulate --retention last=3 -o json | jq .most";

/// What `restore` does.
pub(super) const RESTORE: &str = "\
Makes a new claim with the data of a snapshot, or one for each claim of a group, and waits until they are Bound. \
It changes nothing that exists, and deletes nothing.";

/// What `restore` needs.
pub(super) const RESTORE_USAGE: &str = "\
{program} restore --claim <CLAIM> --to <NAME> [OPTIONS]
       {program} restore --snapshot <SNAPSHOT> --to <NAME> [OPTIONS]
       {program} restore --group <GROUP> --to <PATTERN> [OPTIONS]";

/// What stands behind the flags of `restore`.
pub(super) const RESTORE_AFTER: &str = "\
A flag wins over its variable. Further variables: RESTORE_RUN_UID (the Job's
uid, so that its next attempt goes on with the same claim), RESTORE_RUN_ID (its
name), RESTORE_TERMINATION_LOG, RESTORE_LOG_FORMAT (text or json), RUST_LOG.

Exit codes:
  0    the claim is Bound, or waits for its first consumer as its StorageClass
       wants it
  1    it is not, and another attempt may help
  2    trying again cannot help: the command line, settings, permissions, no
       such snapshot, a name that is taken, a size that is too small
  130  told to stop (Ctrl-C); 143: SIGTERM

Examples:
  {program} list data
  {program} restore --claim data --to data-1
  {program} restore --claim data --at \"2026-11-20 08:55\" --to data-1
  {program} restore --snapshot volume-snapshot-0a1b2c3d --to data-1 --dry-run
  {program} restore --group shop --to {claim}-1";

/// What `adopt` does.
pub(super) const ADOPT: &str = "\
Shows which snapshots a schedule could take over, and what its retention would then do with each; with --yes it \
sets their label 'job', so that the schedule owns them. From then on its runs delete what its rules do not keep, \
the adopted ones as well. In the same step it takes away by what snapscheduler or gemini know them, so that there \
are never two who delete.";

/// How `adopt` is called.
pub(super) const ADOPT_USAGE: &str = "\
{program} adopt <CLAIM>... [OPTIONS]
       {program} adopt --from <SELECTOR> [OPTIONS]
       {program} adopt --snapshot <SNAPSHOT> [OPTIONS]";

/// What the flags of `list` that mean something else to `adopt` are.
pub(super) const ADOPT_JOB: &str =
    "The schedule that gets them: value of the label 'job' [default: volume-snapshotter] [env: SNAPSHOT_JOB]";
pub(super) const ADOPT_SELECTOR: &str =
    "Snapshots of claims by label selector: app=web [env: SNAPSHOT_PVC_SELECTOR]";

/// What stands behind the flags of `adopt`.
pub(super) const ADOPT_AFTER: &str = "\
Of claims, --selector, --from and --snapshot at least one is given; a snapshot
has to match all that are. It leaves alone what another schedule or object owns,
what Velero made (which deletes it itself), what is being deleted, and what was
taken of no claim. A hold stays. The permission is 'patch' on volumesnapshots.

The mark that it takes away is noted in the annotation
volume-snapshotter/adopted-from. To give one back:
  kubectl label volumesnapshot NAME job- snapscheduler.backube/schedule=hourly

Exit codes:
  0  done, or shown
  1  some were not adopted (changed meanwhile, trouble with the API server);
     another attempt may help
  2  the command line, the settings or permissions are wrong, or there is no
     snapshot or claim of a name

Examples:
  {program} adopt --from snapscheduler.backube/schedule=hourly
  {program} adopt data --job nightly
  {program} adopt --from gemini.fairwinds.com/group=postgres
  {program} adopt --snapshot data-hourly-202611200800 --yes";

/// What `read` does.
pub(super) const READ: &str = "\
Reads every byte of every file below a directory, or of a block device, and says what cannot be read. It is what \
the pod of a drill runs on a volume that was made from a snapshot; it asks no cluster, and writes to no volume.";

/// What stands behind the flags of `read`.
pub(super) const READ_AFTER: &str = "\
A file that cannot be read (EIO) is damage. One that may not be read (EACCES)
belongs to somebody else: nobody knows whether it is whole, so that is a failure
too. Both are named in the log. Symbolic links are not followed, pipes, sockets
and devices not opened, other file systems left out, and so is a lost+found at
the top that belongs to root. A file with several names is read once for each,
and of sparse files the holes are passed over. A volume without one byte of
data, or a block device full of zeros, has nothing in it.

RUST_LOG is the filter of the log, which is JSON unless it goes to a terminal.

Exit codes:
  0    everything was read
  1    it was not read to its end: the time is over, or the process lacks
       something; another attempt may help
  2    something cannot or may not be read, there is nothing in it, or there is
       no such path
  130  told to stop (Ctrl-C); 143: SIGTERM

Examples:
  {program} read /data
  {program} read --allow-empty --timeout 2h /data
  {program} read /dev/mapper/data";

/// What `verify` does.
pub(super) const VERIFY: &str = "\
Makes a throw-away volume from the newest ready snapshot of each claim, has a pod read every byte of it, and notes on \
the snapshot what came of it (volume-snapshotter/verified or volume-snapshotter/verify-failed). Pod, claim and volume \
are gone afterwards. What was verified within the last week is not read again.";

/// What the flags of `list` that mean something else to `verify` are.
pub(super) const VERIFY_CLAIMS: &str = "Snapshots of these claims [default: of all that the schedule has snapshots of] [env: SNAPSHOT_PVC_NAMES]";
pub(super) const VERIFY_JOB: &str = "The schedule whose snapshots they are: value of the label 'job' [default: volume-snapshotter] [env: SNAPSHOT_JOB]";

/// What stands behind the flags of `verify`.
pub(super) const VERIFY_AFTER: &str = "\
A flag wins over its variable. Further variables: VERIFY_EVERY (7d: how long a
verification holds), VERIFY_TIME_LIMIT (6h: how long the whole may take),
VERIFY_PING_URL, and those of a run for logs, Events and metrics.

Exit codes:
  0    the newest snapshot of every claim is verified
  1    one is not, and another attempt may help
  2    one is damaged, empty or too old, or trying again cannot help: the command
       line, settings, permissions, the cluster does not allow the pod
  3    all are verified, but that could not be noted, or a Job stays for a while
  130  told to stop (Ctrl-C); 143: SIGTERM

Examples:
  {program} verify data
  {program} verify -l app=web --parallel 4 --max-age 2d
  {program} verify data --image busybox:1 --command '[\"test\", \"-s\", \"/data/app.db\"]'";

/// What stands behind the argument of `completion`.
pub(super) const COMPLETION_AFTER: &str = "\
Examples:
  source <({program} completion bash)
  source <({program} completion zsh)
  {program} completion fish | source";
