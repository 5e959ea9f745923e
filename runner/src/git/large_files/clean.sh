# What git keeps of a file that Git LFS has: a pointer, the same that git-lfs makes. Ours, so that nothing of the agent's
# configuration says what a file's content is.
# usage: sh clean.sh FILE [STORE] < content; with a store, the content is kept there.
set -eu
file=$1 store=${2:-}
size=$(stat -L -c %s -- "$file" 2>/dev/null || echo 0)
if [ "$size" -ge 1024 ] && [ -z "$store" ]; then
  oid=$(sha256sum)
  oid=${oid%% *}
else
  copy=$(mktemp)
  trap 'rm -f "$copy"' EXIT
  cat > "$copy"
  size=$(stat -c %s "$copy")
  # Nothing stays nothing, and a pointer a pointer.
  if [ "$size" -lt 1024 ]; then
    first=
    read -r first < "$copy" || true
    if [ "$size" -eq 0 ] || [ "$first" = "version https://git-lfs.github.com/spec/v1" ]; then
      cat "$copy"
      exit
    fi
  fi
  oid=$(sha256sum < "$copy")
  oid=${oid%% *}
  if [ -n "$store" ]; then
    rest=${oid#??}
    one=${oid%"$rest"}
    after=${rest#??}
    place=$store/$one/${rest%"$after"}
    mkdir -p "$place"
    [ -e "$place/$oid" ] || mv "$copy" "$place/$oid"
  fi
fi
printf 'version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %s\n' "$oid" "$size"
