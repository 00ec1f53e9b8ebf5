# What a shell does beside running commands: jobs, process substitution, coprocesses, traps, a terminal's jobs.
set -eu

diff <(printf 'a\nb\n') <(printf 'b\na\n' | sort)
test "$(cat < <(echo in))" = in
printf 'out\n' > >(cat >substituted)
wait $!
test "$(cat substituted)" = out
echo OK substitution

echo OK stdout >/dev/stdout
echo stderr | tee /dev/stderr >/dev/null
cat </dev/stdin

coproc ECHO { cat; }
echoing=$ECHO_PID # the variable goes with the process
echo ping >&"${ECHO[1]}"
read -r answer <&"${ECHO[0]}"
test "$answer" = ping
kill $echoing
wait $echoing || test $? = 143
echo OK coprocess

# each job gets a group of its own
set -m
sleep 600 | sleep 600 &
last=$!
kill -STOP %1
until [ -n "$(jobs -s)" ]; do :; done
kill -CONT %1
kill %1
wait $last || test $? = 143
(exit 9) &
code=0
wait $! || code=$?
test $code = 9
set +m
echo OK jobs

caught=
trap 'caught=yes' USR1
kill -USR1 $$
test "$caught" = yes
ulimit -S -n 64
test "$(ulimit -n)" = 64
mkfifo pipe
cat pipe >from-pipe &
echo through >pipe
wait $!
test "$(cat from-pipe)" = through
echo OK traps

# in a terminal: ^Z stops the foreground job, fg resumes it, ^C ends it
if command -v script >/dev/null; then
	cat >session <<'END'
set -m
sh -c 'kill -STOP $$; exit 11'
jobs -s >stopped
fg >/dev/null
echo "resumed $?"
stty size >/dev/null && tty >/dev/null && echo "terminal"
END
	script -q -c 'bash --norc -i session' /dev/null </dev/null | tr -d '\r' >terminal
	grep -q 'kill -STOP' stopped
	grep -qx 'resumed 11' terminal
	grep -qx 'terminal' terminal
fi
echo OK terminal

setsid env -i sleep 600 </dev/null >/dev/null 2>&1 &
echo "LEFT $!"
nohup sleep 600 </dev/null >/dev/null 2>&1 &
disown
echo "LEFT $!"
exit 48
