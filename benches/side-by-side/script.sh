# What this program replaces: the script of the CronJob that the manual "Back Up Kyma" gives. The commands, the waiting and
# the labels are its own. Different are the API version (v1beta1 is served no more), and the places where the manual wants
# a name filled in: NAMESPACE, SNAPSHOT_CLASS_NAME and PVC_NAME are variables.

# Create volume snapshot with random name.
RANDOM_ID=$(openssl rand -hex 4)

cat <<MANIFEST | kubectl apply -f -
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata:
  name: volume-snapshot-${RANDOM_ID}
  namespace: ${NAMESPACE}
  labels:
    "job": "volume-snapshotter"
    "name": "volume-snapshot-${RANDOM_ID}"
spec:
  volumeSnapshotClassName: ${SNAPSHOT_CLASS_NAME}
  source:
    persistentVolumeClaimName: ${PVC_NAME}
MANIFEST

# Wait until volume snapshot is ready to use.
attempts=3
retryTimeInSec="30"
for ((i=1; i<=attempts; i++)); do
    STATUS=$(kubectl get volumesnapshot volume-snapshot-${RANDOM_ID} -n ${NAMESPACE} -o jsonpath='{.status.readyToUse}')
    if [ "${STATUS}" == "true" ]; then
        echo "Volume snapshot is ready to use."
        break
    fi

    if [[ "${i}" -lt "${attempts}" ]]; then
        echo "Volume snapshot is not yet ready to use, let's wait ${retryTimeInSec} seconds and retry. Attempts ${i} of ${attempts}."
    else
        echo "Volume snapshot is still not ready to use after ${attempts} attempts, giving up."
        exit 1
    fi
    sleep ${retryTimeInSec}
done

# Delete old volume snapshots.
kubectl delete volumesnapshot -n ${NAMESPACE} -l job=volume-snapshotter,name!=volume-snapshot-${RANDOM_ID}
