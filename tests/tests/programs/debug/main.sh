# A debugger and a tracer, started on a program and attached to one that runs.
set -eu
gcc -g -pthread -o program main.c
# a path of the debuggee's libraries may have scripts that a debugger wants to load; none of them is needed here
debug() { gdb -nx -batch -ex 'set debuginfod enabled off' "$@" </dev/null 2>gdb.err; }

debug -ex 'break compute' -ex run -ex finish -ex 'print answer' -ex continue ./program >gdb.out ||
	{ cat gdb.out gdb.err >&2; exit 1; }
grep -q '= 42' gdb.out && grep -q 'exited with code 052' gdb.out || { cat gdb.out gdb.err >&2; exit 1; }
echo OK gdb

mkfifo started
./program wait >started &
waiting=$!
read -r ready <started
debug -p $waiting -ex backtrace -ex 'set variable answer = 41' -ex 'print answer + 1' -ex detach >attached.out
grep -q pause attached.out && grep -q '= 42' attached.out || { cat attached.out gdb.err >&2; exit 1; }
strace -q -p $waiting -o waiting.out &
tracer=$!
until grep -q "^TracerPid:.*[^0-9]$tracer\$" /proc/$waiting/status; do kill -0 $tracer; done
kill -INT $tracer
wait $tracer || test $? = 130
kill $waiting
echo OK attach

code=0
strace -f -o strace.out ./program || code=$?
test $code = 42
grep -q 'execve("/bin/sh", \["sh", "-c"' strace.out
grep -q 'exit_group(7)' strace.out
echo OK strace
exit 50
