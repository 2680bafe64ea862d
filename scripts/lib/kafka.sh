# A real Apache Kafka from Maven Central. Sourced after common.sh.

kafka_jars=${CRM_KAFKA_LIBS:-$target/kafka-4.1.0/libs}
# Arguments of the broker's Java; the benchmarks have their own.
kafka_jvm=$root/scripts/lib/kafka.jvm

# ensure_kafka: copies the jars once, about half a minute and 54 MB; exports where they are.
ensure_kafka() {
  local pom="$root/scripts/lib/kafka-pom.xml" fresh output
  export CRM_KAFKA_LIBS=$kafka_jars
  # The copy of the pom is written last: it says that all jars are there, and of which versions.
  if cmp -s "$pom" "$kafka_jars/pom.xml"; then return 0; fi

  say "copying Kafka's jars from Maven Central"
  mkdir -p "$(dirname "$kafka_jars")"
  fresh=$(mktemp -d "$kafka_jars.XXXXXX")
  output=$(mvn -q -B -f "$pom" dependency:copy-dependencies "-DoutputDirectory=$fresh" 2>&1) || {
    rm -rf "$fresh"
    printf '%s\n' "$output" >&2
    fail "Kafka's jars cannot be had from Maven Central (see above); without a broker the tests prove nothing"
  }
  cp "$pom" "$fresh/pom.xml"
  chmod 755 "$fresh"
  rm -rf "$kafka_jars"
  mv "$fresh" "$kafka_jars"
}

# start_kafka: one broker with its data in the scratch folder; sets kafka_address once it takes requests.
start_kafka() {
  local port dir="$scratch/kafka" log="$scratch/kafka.log" cluster
  port=$(free_port)
  mkdir -p "$dir"
  sed -e "s|@PORT@|$port|g" -e "s|@CONTROLLER_PORT@|$(free_port)|g" -e "s|@DATA@|$dir/data|g" \
    "$root/scripts/lib/kafka.properties" >"$dir/server.properties"

  cluster=$(kafka_java kafka.tools.StorageTool random-uuid 2>/dev/null) || fail "Kafka's StorageTool does not run"
  kafka_java kafka.tools.StorageTool format --cluster-id "$cluster" --config "$dir/server.properties" >"$log" 2>&1 || {
    show_log_tail "$log"
    fail "Kafka's folder cannot be made; the end of its log is above"
  }
  start_server "$log" java "@$kafka_jvm" -cp "$kafka_jars/*" kafka.Kafka "$dir/server.properties"
  wait_until_ready Kafka "$log" 90 grep -q 'Kafka Server started' "$log"
  kafka_address=127.0.0.1:$port
}

kafka_java() { java "@$root/scripts/lib/kafka.jvm" -cp "$kafka_jars/*" "$@"; }
