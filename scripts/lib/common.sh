# Shared by the scripts: words to the user, timed phases, packages, ports, and children that end with the script.
# Sourced with `set -euo pipefail` in force, from any folder; `root` is the repository.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}

say() { printf '== %s\n' "$*" >&2; }

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# phase NAME COMMAND...: runs it and says how long it took; a failure ends the script with the command's exit code.
phase() {
  local name=$1 started=$SECONDS
  shift
  say "$name"
  run_interruptibly "$@" || {
    local code=$?
    say "$name: failed after $((SECONDS - started)) s (exit code $code)"
    exit "$code"
  }
  say "$name: $((SECONDS - started)) s"
}

# Runs a command in a process group of its own and waits for it, so that a signal to this script is acted on at once
# and takes the whole group along. (Bash holds a trap back until a command in the foreground has ended.)
running_group=
run_interruptibly() {
  set -m
  "$@" </dev/null &
  running_group=$!
  set +m
  local code=0
  wait "$running_group" || code=$?
  running_group=
  return "$code"
}

# Servers write here; removed at the end together with everything that still runs.
scratch=
on_exit() {
  local code=$?
  trap - EXIT INT TERM HUP
  if [ -n "$running_group" ]; then
    stop_group "$running_group"
  fi
  stop_servers
  if [ -n "$scratch" ]; then
    # PostgreSQL's children end a moment after it and may still write.
    rm -rf "$scratch" 2>/dev/null || { sleep 1 && rm -rf "$scratch" || true; }
  fi
  exit "$code"
}

# Asks a process group to end, and ends it after 10 s: it may have servers of its own to stop.
stop_group() {
  local tenths
  kill -TERM -- "-$1" 2>/dev/null || return 0
  for ((tenths = 0; tenths < 100; tenths++)); do
    kill -0 -- "-$1" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL -- "-$1" 2>/dev/null || true
}

# clean_up_at_exit: from here on, every way out stops what still runs and removes the scratch folder.
clean_up_at_exit() {
  trap on_exit EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  trap 'exit 129' HUP
}

make_scratch() {
  scratch=$(mktemp -d "${TMPDIR:-/tmp}/crm-servers.XXXXXX")
  # PostgreSQL runs as another user and has to get through to its folder.
  chmod 711 "$scratch"
}

# start_server LOG COMMAND...: in the background, on its own in a session so that Ctrl-C reaches this script and
# not the server, and killed by the kernel should this script be killed with SIGKILL.
server_pids=()
start_server() {
  local log=$1
  shift
  setsid setpriv --pdeathsig KILL -- "$@" </dev/null >"$log" 2>&1 &
  server_pids+=($!)
}

# What the servers hold is thrown away: there is nothing to close in good order.
stop_servers() {
  local pid
  for pid in ${server_pids[@]+"${server_pids[@]}"}; do
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  server_pids=()
}

# wait_until_ready NAME LOG SECONDS COMMAND...: asks COMMAND until it succeeds. When the server last started ends or the
# time is over, shows the end of LOG and fails.
wait_until_ready() {
  local name=$1 log=$2 limit=$3 started=$SECONDS pid=${server_pids[-1]}
  shift 3
  until "$@" >/dev/null 2>&1; do
    if ! kill -0 "$pid" 2>/dev/null; then
      show_log_tail "$log"
      fail "$name has ended while starting; the end of its log is above"
    fi
    if ((SECONDS - started >= limit)); then
      show_log_tail "$log"
      fail "$name is not ready after $limit s; the end of its log is above"
    fi
    sleep 0.2
  done
}

show_log_tail() {
  printf -- '--- the end of %s ---\n' "$(basename "$1")" >&2
  tail -n 40 "$1" >&2 || true
}

# A port on loopback that nobody listens on, below those that the kernel gives to outgoing connections.
free_port() {
  python3 -c '
import random, socket
while True:
    port = random.randrange(10000, 30000)
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            continue
    print(port)
    break'
}

# ensure_packages: installs what a fresh Debian machine lacks. Touches nothing when all is there.
ensure_packages() {
  local missing=() java_major
  command -v cc >/dev/null && command -v c++ >/dev/null || missing+=(gcc g++ libc6-dev)
  command -v make >/dev/null || missing+=(make)
  command -v pkg-config >/dev/null || missing+=(pkg-config)
  echo '#include <zlib.h>' | cc -E - >/dev/null 2>&1 || missing+=(zlib1g-dev)
  command -v python3 >/dev/null || missing+=(python3)
  python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
  command -v node >/dev/null && command -v npm >/dev/null || missing+=(nodejs npm)
  command -v mvn >/dev/null || missing+=(maven)
  java_major=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1 || true)
  if ((${java_major:-0} < 17)); then missing+=(default-jre-headless); fi
  postgres_bin >/dev/null || missing+=(postgresql)
  # For promtool, which checks what is told to Prometheus.
  command -v promtool >/dev/null || missing+=(prometheus)
  if ((${#missing[@]} == 0)); then return 0; fi

  command -v apt-get >/dev/null ||
    fail "this machine lacks: ${missing[*]} (names of Debian packages), and has no apt-get to install them with"
  if (($(id -u) != 0)); then
    fail "this machine lacks: ${missing[*]}; as root: apt-get install ${missing[*]}"
  fi
  say "installing ${missing[*]}"
  apt-get update -qq || fail "apt-get update failed (see above), so ${missing[*]} cannot be installed"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    fail "apt-get cannot install ${missing[*]} (see above)"
  hash -r
}
