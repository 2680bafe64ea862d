# A PostgreSQL of our own from the programs that Debian installs. Sourced after common.sh.

# Settings of the server; the benchmarks have their own.
postgres_options=$root/scripts/lib/postgres.options

# postgres_bin: prints the folder of initdb and postgres, the newest when there are several.
postgres_bin() {
  local newest
  if [ -n "${CRM_POSTGRES_BIN:-}" ]; then
    newest=$CRM_POSTGRES_BIN
  else
    newest=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
  fi
  [ -x "$newest/initdb" ] && printf '%s\n' "$newest"
}

# ensure_postgres: exports where the programs are, for tests that start servers of their own.
ensure_postgres() {
  local bin
  bin=$(postgres_bin) || fail "there is no PostgreSQL (initdb) on this machine; without it the tests prove nothing"
  export CRM_POSTGRES_BIN=$bin
}

# start_postgres: one server with its data in the scratch folder; sets postgres_url once it takes connections.
start_postgres() {
  local port dir="$scratch/postgres" log="$scratch/postgres.log" as_user=() options=() option
  port=$(free_port)
  mkdir -p "$dir"
  # PostgreSQL refuses to run as root; the user comes with Debian's package.
  if (($(id -u) == 0)); then
    chown postgres "$dir"
    as_user=(setpriv --reuid=postgres --regid=postgres --clear-groups --pdeathsig KILL --)
  fi
  while IFS= read -r option; do
    case $option in '#'*) ;; *) options+=(-c "$option") ;; esac
  done <"$postgres_options"

  ${as_user[@]+"${as_user[@]}"} "$CRM_POSTGRES_BIN/initdb" -D "$dir" -U crm --auth=trust --encoding=UTF8 --locale=C --no-sync \
    >"$log" 2>&1 || {
    show_log_tail "$log"
    fail "PostgreSQL's folder cannot be made; the end of its log is above"
  }
  start_server "$log" ${as_user[@]+"${as_user[@]}"} "$CRM_POSTGRES_BIN/postgres" -D "$dir" -p "$port" "${options[@]}"
  wait_until_ready PostgreSQL "$log" 60 "$CRM_POSTGRES_BIN/pg_isready" -q -h 127.0.0.1 -p "$port"
  postgres_url=postgres://crm@127.0.0.1:$port/postgres
}
