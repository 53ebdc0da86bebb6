//! What `--help` prints.

/// Of the program.
pub const HELP: &str = "\
Takes a VolumeSnapshot of each chosen PersistentVolumeClaim, waits until it is
ready, and only then deletes the older ones that the retention policy no longer
wants. Runs once and exits; a CronJob repeats it.

Usage: volume-snapshotter [--help | --version]
       volume-snapshotter list [CLAIM...] [FLAGS]
       volume-snapshotter restore --claim CLAIM --to NAME [FLAGS]
       volume-snapshotter completion bash|zsh|fish

Commands:
  (none)      the run that is described above
  list        show the snapshots there are, and why each stays or goes
  restore     make a new claim from a snapshot
  completion  print a script that completes the command line in a shell

What a command takes is in its own help: volume-snapshotter restore --help

All settings of a run are environment variables. One of the first two must be
set.

  SNAPSHOT_PVC_NAMES        claims, comma-separated: data or data,logs
  SNAPSHOT_PVC_SELECTOR     claims by label selector: app=web
  SNAPSHOT_NAMESPACE        where [the pod's own, or the kubeconfig context's]
  SNAPSHOT_NAMESPACE_SELECTOR
                            all namespaces that match, instead of one
  SNAPSHOT_CLASS_NAME       VolumeSnapshotClass [the cluster's default]
  SNAPSHOT_NAME_PREFIX      what names begin with [volume-snapshot]
  SNAPSHOT_JOB              label 'job': the schedule that owns them
                            [volume-snapshotter]
  SNAPSHOT_READY_ATTEMPTS   how many windows to wait [3]
  SNAPSHOT_READY_INTERVAL   how long one is: 30, 30s, 5m, 1m30s [30s]
  SNAPSHOT_RETENTION        what stays, if any rule keeps it: last=N, hourly=N,
                            daily=N, weekly=N, monthly=N, yearly=N, within=14d,
                            deltas=PT1H P1D P7D, all [last=1; outside a pod
                            nothing is deleted unless this is set]
  SNAPSHOT_PRUNE_UNREAD_CLAIMS
                            true: delete also where claims may not be read, and
                            their annotations are not known [false]
  SNAPSHOT_CONCURRENCY      requests in flight [8]
  SNAPSHOT_DRY_RUN          true: say what would happen, change nothing [false]
  SNAPSHOT_HOLD             true: no schedule ever deletes what this run makes
                            [false]
  SNAPSHOT_SHARDS           pods of an Indexed Job that share the claims [1]
  JOB_COMPLETION_INDEX      which of them this one is, from 0; set by Kubernetes
  SNAPSHOT_RUN_ID           the Job's name, for people and labels [random]
  SNAPSHOT_RUN_UID          the Job's uid, by which its next attempt goes on
                            with the same snapshots [nothing is taken over]
  SNAPSHOT_TERMINATION_LOG  file for the final message [/dev/termination-log]
  SNAPSHOT_LOG_FORMAT       text or json [text on a terminal, else json]
  RUST_LOG                  log filter [info]

In a pod it uses the ServiceAccount; elsewhere the kubeconfig, as kubectl does.

Exit codes:
  0    every claim has a new ready snapshot, and what had to go is gone
  1    some claim has none; another attempt may help
  2    some claim has none; trying again cannot help (settings, permissions,
       no snapshot API, no such claim, nothing selected)
  3    all snapshots are ready, but some old ones could not be deleted
  143  told to stop (SIGTERM)

Example:
  SNAPSHOT_PVC_NAMES=data SNAPSHOT_DRY_RUN=true volume-snapshotter
";

/// Of `list`.
pub const LIST_HELP: &str = "\
Shows the snapshots of the schedules here, newest first, and why each stays or
goes: by the settings of the CronJobs of this program that it finds, each
snapshot by those of its own schedule. Flags and variables (SNAPSHOT_*, see
volume-snapshotter --help) win over them. Of each claim it also shows what a
restore would choose, whoever made it. It changes nothing.

Usage: volume-snapshotter list [CLAIM...] [FLAGS]

  CLAIM...                  these claims [as the settings say, else all]
  -l, --selector SELECTOR   claims by label selector: app=web
  -n, --namespace NAMESPACE where [the pod's own, or the kubeconfig context's]
  -A, --all-namespaces      everywhere
      --kubeconfig FILE     the kubeconfig [KUBECONFIG, else ~/.kube/config]
      --context CONTEXT     its context [the current one]
      --job JOB             only this schedule: value of the label 'job'
                            [SNAPSHOT_JOB, else all that are found]
      --all                 all snapshots, whoever made them
      --retention RULES     show what these rules would keep: hourly=24,daily=7
  -o, --output FORMAT       table, wide, json or yaml [table]
  -h, --help                this text

Columns:
  STATE      ok, held, waiting (not ready yet), error, terminating, stuck (for
             more than an hour)
  RETENTION  why it stays, or that it will go; as things are now: the next run
             makes a new snapshot first, and counts that too; 'would go': by
             rules that are given or assumed, or of a suspended schedule

Exit codes:
  0  done
  1  trouble with the API server; another attempt may help
  2  the command line, the settings or permissions are wrong, or there is
     neither a claim of that name nor a snapshot of one

Examples:
  volume-snapshotter list
  volume-snapshotter list data -n shop -o wide
  volume-snapshotter list --retention hourly=24,daily=7 data
  volume-snapshotter list -o json | jq -r '.items[] | select(.ready | not).snapshot'
";

/// Of `restore`.
pub const RESTORE_HELP: &str = "\
Makes a new claim with the data of a snapshot, and waits until it is Bound. It
changes nothing that exists, and deletes nothing.

Usage: volume-snapshotter restore --claim CLAIM --to NAME [FLAGS]
       volume-snapshotter restore --snapshot SNAPSHOT --to NAME [FLAGS]

Each flag stands for a variable, which it wins over.

      --claim CLAIM         RESTORE_CLAIM: the claim whose data is wanted; it
                            may be gone
      --snapshot SNAPSHOT   RESTORE_SNAPSHOT: this one [the latest that is
                            ready]
      --at TIME             RESTORE_AT: the latest of that moment or before:
                            2026-11-20T08:55:00Z, or \"2026-11-20 08:55\" (UTC)
      --to NAME             RESTORE_TO: the name of the new claim
  -n, --namespace NAMESPACE RESTORE_NAMESPACE: where [the pod's own, or the
                            kubeconfig context's]
      --kubeconfig FILE     the kubeconfig [KUBECONFIG, else ~/.kube/config]
      --context CONTEXT     its context [the current one]
      --job JOB             RESTORE_JOB: only snapshots of this schedule
                            [of any]
      --size SIZE           RESTORE_SIZE: 10Gi [the larger of the claim's and
                            the snapshot's]
      --storage-class CLASS RESTORE_STORAGE_CLASS [the claim's]
      --access-modes MODES  RESTORE_ACCESS_MODES: ReadWriteOnce, or RWO,ROX
                            [the claim's]
      --volume-mode MODE    RESTORE_VOLUME_MODE: Filesystem or Block [the
                            claim's]
      --timeout TIME        RESTORE_TIMEOUT: how long to wait: 30s, 5m, 2h [5m]
      --dry-run             RESTORE_DRY_RUN=true: print the YAML of the claim
                            that would be made
  -h, --help                this text

Further variables: RESTORE_RUN_UID (the Job's uid, so that its next attempt goes
on with the same claim), RESTORE_RUN_ID (its name), RESTORE_TERMINATION_LOG,
RESTORE_LOG_FORMAT (text or json), RUST_LOG.

Exit codes:
  0    the claim is Bound, or waits for its first consumer as its StorageClass
       wants it
  1    it is not, and another attempt may help
  2    trying again cannot help: the command line, settings, permissions, no
       such snapshot, a name that is taken, a size that is too small
  130  told to stop (Ctrl-C); 143: SIGTERM

Examples:
  volume-snapshotter list data
  volume-snapshotter restore --claim data --to data-restored
  volume-snapshotter restore --claim data --at \"2026-11-20 08:55\" --to data-restored
  volume-snapshotter restore --snapshot volume-snapshot-0a1b2c3d --to data-restored --dry-run
";
