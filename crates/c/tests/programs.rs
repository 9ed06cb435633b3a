//! Programs of the machine, with the preload library and without: the same output, byte for byte, and the same exit.
//!
//! A program that is not installed is skipped. The ignored tests take more than a few seconds; `.ci/run` runs them too.

mod common;

use common::{PRELOAD, assert_success, exists, folder, libraries, package, text};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A shell line has the same outcome with the library, hardened too.
fn compare(name: &str, tool: &str, line: &str) {
    compare_with(&[false, true], name, tool, line);
}

/// A shell line has the same outcome without the library and with it, in a folder of its own each.
fn compare_with(hardened: &[bool], name: &str, tool: &str, line: &str) {
    if !exists(tool) {
        return;
    }
    let plain = shell(name, line, None);
    assert_success(&plain);
    assert!(!plain.stdout.is_empty(), "{name} writes nothing");
    for &hardened in hardened {
        let ours = shell(name, line, Some(libraries(hardened).join(PRELOAD)));
        assert_eq!(ours.status, plain.status, "{name}, hardened: {hardened}: {}", text(&ours.stderr));
        let (out, expected) = (text(&ours.stdout), text(&plain.stdout));
        assert!(ours.stdout == plain.stdout, "{name}, hardened: {hardened}: {out}\nwithout: {expected}");
        assert!(!text(&ours.stderr).contains("smalloc"), "{name}: {}", text(&ours.stderr));
    }
}

fn shell(name: &str, line: &str, preload: Option<PathBuf>) -> Output {
    let place = folder(&format!("run-{name}-{}", std::process::id()));
    let mut command = Command::new("bash");
    command.args(["-c", line]).current_dir(&place).stdin(Stdio::null());
    command.env("ROOT", package().join("../..")).env("PYTHONHASHSEED", "1").env("PYTHONMALLOC", "malloc");
    if let Some(library) = preload {
        command.env("LD_PRELOAD", library);
    }
    let output = command.output().unwrap();
    std::fs::remove_dir_all(place).unwrap();
    output
}

#[test]
fn shells() {
    compare(
        "bash",
        "bash",
        "declare -A seen; for i in {1..3000}; do seen[$((i * 7 % 501))]=$i; done; echo ${#seen[@]} ${seen[3]}; \
         for i in {1..20}; do echo $(echo $i); done; seq 2000 | sort -r | uniq | awk '{ s += $1 } END { print s }'",
    );
}

#[test]
fn file_tools() {
    compare(
        "ls",
        "ls",
        "ls -lR $ROOT/src $ROOT/docs; find $ROOT/src | sort | tail; grep -rn unsafe $ROOT/src | sort | md5sum",
    );
    compare("tar", "tar", "tar -C $ROOT -cf - src docs | gzip -n | gunzip | tar -tf -");
}

#[test]
fn git() {
    compare(
        "git",
        "git",
        "export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_DATE='1 Jan 2026 0:00 +0000' GIT_COMMITTER_DATE='1 Jan 2026 0:00 +0000'; \
         git init -q . && git config user.name a && git config user.email a@b && cp -r $ROOT/src . && git add . && \
         git commit -qm one && sed -i s/heap/HEAP/g src/*.rs && git commit -qam two && git log -p --stat && git gc -q && \
         git fsck && git diff HEAD~1 | md5sum",
    );
}

#[test]
fn interpreters() {
    compare(
        "python",
        "python3",
        "python3 -c 'import json, re, sqlite3, threading\n\
         data = {str(i): [i] * (i % 50) for i in range(5000)}\n\
         print(len(json.dumps(json.loads(json.dumps(data)))), len(re.findall(\"[1-9]0\", json.dumps(data))))\n\
         base = sqlite3.connect(\":memory:\"); base.execute(\"create table t (a, b)\")\n\
         base.executemany(\"insert into t values (?, ?)\", ((i, str(i) * 20) for i in range(5000)))\n\
         print(base.execute(\"select sum(a), max(b) from t\").fetchall())\n\
         threads = [threading.Thread(target=lambda: [bytearray(i) for i in range(3000)]) for _ in range(8)]\n\
         [t.start() for t in threads]; [t.join() for t in threads]; print(sorted(data)[:9])'",
    );
    compare(
        "perl",
        "perl",
        "perl -e 'for $i (1..60000) { $h{$i % 5003} .= \"x$i\"; } print join(\",\", map { length $h{$_} } sort keys %h), \"\\n\";'",
    );
    compare(
        "sqlite",
        "sqlite3",
        "sqlite3 a.db 'create table t(a, b); with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000) \
         insert into t select i, hex(zeroblob(i % 60)) from n; create index x on t(b, a); select sum(a), count(distinct b) from t; \
         vacuum; pragma integrity_check;'",
    );
}

#[test]
fn compilers() {
    compare("gcc", "gcc", "gcc -O2 -fno-builtin -w -S -o - $ROOT/crates/c/tests/c/edge.c");
    compare("g++", "g++", "g++ -O1 -w -S -o - $ROOT/crates/c/tests/c/operators.cc");
    compare("clang", "clang", "clang -O2 -w -S -o - $ROOT/crates/c/tests/c/edge.c");
}

#[test]
fn debuggers() {
    compare(
        "gdb",
        "gdb",
        "gdb -q -nx -batch -ex 'info line main' -ex 'ptype int' -ex 'print 6 * 7' /bin/true",
    );
}

#[test]
fn virtual_machines() {
    compare(
        "node",
        "node",
        "node -e 'const m = new Map(); for (let i = 0; i < 2e5; i++) m.set(i % 999, \"x\".repeat(i % 70)); console.log(m.size)'",
    );
    compare("java", "java", "java -version 2>&1 | head -1");
}

#[test]
fn media() {
    compare(
        "ffmpeg",
        "ffmpeg",
        "ffmpeg -loglevel error -f lavfi -i testsrc=d=1:s=320x240 -f rawvideo -c:v mpeg4 - | md5sum",
    );
}

/// The tests of CPython have the same outcome.
#[test]
#[ignore = "takes a minute"]
fn tests_of_python() {
    compare_with(
        &[false],
        "python-tests",
        "python3",
        "python3 -c 'import test.test_json' 2>/dev/null || { echo no tests; exit 0; }; \
         for t in json dict re list bytes zlib os fork1 subprocess sqlite3 threading; do \
         timeout 300 python3 -m test -q test_$t > log 2>&1; echo $t $?; done",
    );
}

/// A server that handles load, saves its data, and ends.
#[test]
#[ignore = "takes half a minute"]
fn servers() {
    compare_with(
        &[false],
        "redis",
        "redis-server",
        "redis-server --unixsocket $PWD/s --port 0 --save '' --daemonize yes --pidfile $PWD/pid --dir $PWD > /dev/null; \
         for i in 1 2 3 4 5 6 7 8 9; do sleep 0.2; [ -S s ] && break; done; c='redis-cli -s s'; \
         for i in {1..200}; do echo set k$i $(printf %0${i}d $i); done | $c > /dev/null; \
         $c debug populate 20000 > /dev/null; $c dbsize; $c save; $c get k77; $c flushall; $c dbsize; $c shutdown nosave; sleep 0.3; \
         [ -e pid ] && echo runs || echo ended",
    );
    compare_with(
        &[false],
        "postgres",
        "psql",
        "bin=$(ls -d /usr/lib/postgresql/*/bin | tail -1); chmod 777 .; d=$PWD/data; \
         as() { if [ $(id -u) = 0 ]; then setpriv --reuid=nobody --clear-groups \"$@\"; else \"$@\"; fi; }; \
         as $bin/initdb -D $d -A trust -U postgres > /dev/null && \
         as $bin/pg_ctl -D $d -w -o \"-k $PWD -c listen_addresses=''\" -l $d/log start > /dev/null && \
         psql -h $PWD -U postgres -Atc \"create table t as select i, repeat('x', i % 300) as b from generate_series(1, 50000) i; \
         create index on t(b); select count(*), sum(length(b)) from t; select length(array_agg(b)::text) from t\"; \
         as $bin/pg_ctl -D $d -w stop; grep -c PANIC $d/log || true",
    );
}
