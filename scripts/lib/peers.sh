# What the benchmarks' peers need beyond scripts/test. Sourced after common.sh.

# ensure_protoc: UmaDB's client is generated from its protocol file when it is built.
ensure_protoc() {
  if command -v protoc >/dev/null; then return 0; fi
  if (($(id -u) != 0)) || ! command -v apt-get >/dev/null; then
    fail "B14 needs protoc; install protobuf-compiler"
  fi
  say "installing protobuf-compiler"
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends protobuf-compiler >/dev/null ||
    fail "apt-get cannot install protobuf-compiler (see above)"
}

# ensure_jars NAME POM: copies the jars that a pom names into target/NAME once; prints nothing.
ensure_jars() {
  local pom=$2 folder=$target/$1 fresh output
  if cmp -s "$pom" "$folder/pom.xml"; then return 0; fi
  say "copying the jars of $1 from Maven Central"
  mkdir -p "$target"
  fresh=$(mktemp -d "$folder.XXXXXX")
  output=$(mvn -q -B -f "$pom" dependency:copy-dependencies "-DoutputDirectory=$fresh" 2>&1) || {
    rm -rf "$fresh"
    printf '%s\n' "$output" >&2
    fail "the jars of $1 cannot be had from Maven Central (see above)"
  }
  cp "$pom" "$fresh/pom.xml"
  rm -rf "$folder"
  mv "$fresh" "$folder"
}

# ensure_axon: the jars, and our program on them.
ensure_axon() {
  local sources=$root/bench/peers/axon classes=$target/axon/classes
  if ! command -v javac >/dev/null; then
    if (($(id -u) != 0)) || ! command -v apt-get >/dev/null; then
      fail "P4 needs a Java compiler; install default-jdk-headless"
    fi
    say "installing default-jdk-headless"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends default-jdk-headless >/dev/null ||
      fail "apt-get cannot install default-jdk-headless (see above)"
  fi
  ensure_jars axon "$sources/pom.xml"
  mkdir -p "$classes"
  javac -d "$classes" -cp "$target/axon/*" "$sources"/*.java || fail "the program of P4 does not compile (see above)"
}
