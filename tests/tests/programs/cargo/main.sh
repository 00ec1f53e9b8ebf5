# Compile with a build script, run the tests, run the program.
set -eu
cargo build --offline --quiet
echo OK build
cargo test --offline --quiet >tests.log 2>&1 || { cat tests.log >&2; exit 1; }
echo OK test
exec target/debug/tiny
