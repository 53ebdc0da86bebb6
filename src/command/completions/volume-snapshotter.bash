# Completes volume-snapshotter in bash. Load it with: source <(volume-snapshotter completion bash)
_volume_snapshotter() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} words=
  COMPREPLY=()
  case $previous in
    -o | --output) words='table wide json yaml' ;;
    --kubeconfig)
      # shellcheck disable=SC2207
      COMPREPLY=($(compgen -f -- "$current"))
      return
      ;;
    --volume-mode) words='Filesystem Block' ;;
    --access-modes) words='ReadWriteOnce ReadOnlyMany ReadWriteMany ReadWriteOncePod' ;;
    -l | --selector | -n | --namespace | --context | --job | --retention | --claim | --snapshot | --at | --to | \
      --size | --storage-class | --timeout) return ;;
    *)
      if [ "$COMP_CWORD" -eq 1 ]; then
        words='list restore completion --help --version'
      else
        case ${COMP_WORDS[1]} in
          list)
            words='--selector --namespace --all-namespaces --kubeconfig --context --job --all --retention --output
              --help'
            ;;
          restore)
            words='--claim --snapshot --at --to --namespace --kubeconfig --context --job --size --storage-class
              --access-modes --volume-mode --timeout --dry-run --help'
            ;;
          completion) words='bash zsh fish' ;;
        esac
      fi
      ;;
  esac
  # Not mapfile, which the bash of macOS lacks; none of the words has a blank or a wildcard.
  # shellcheck disable=SC2207
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -F _volume_snapshotter volume-snapshotter
