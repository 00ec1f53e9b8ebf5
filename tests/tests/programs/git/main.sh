# What an agent does with git, in the workspace itself and beside it: commit, clone, worktree, merge, push, gc.
set -eu
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
export GIT_CONFIG_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0

git init -q -b main .
echo main.sh >>.git/info/exclude
printf 'one\n' >file
git add file
git commit -q -m one
echo OK commit

git worktree add -q -b side tree
printf 'two\n' >tree/second
git -C tree add second
git -C tree commit -q -m two
printf 'three\n' >>file
git commit -q -a -m three
git merge -q -m merge side
test "$(cat second)" = two
git worktree remove tree
echo OK worktree

mkdir a b
printf 'moved\n' >a/file
git add a
git mv a/file b/file
git commit -q -m moved
echo OK move

# a path clones by hard links, a URL by the pack protocol through a child
git clone -q . "$HOME/linked"
git clone -q --bare "file://$PWD" "$HOME/bare.git"
git -C "$HOME/linked" push -q "$HOME/bare.git" main:pushed
test "$(git -C "$HOME/bare.git" rev-parse pushed)" = "$(git rev-parse HEAD)"
echo OK clone

printf 'draft\n' >draft
git stash push -q --include-untracked
test ! -e draft
git stash pop -q >/dev/null
git gc -q --prune=now
git fsck --full --strict >/dev/null 2>&1
git diff --exit-code HEAD~1 HEAD >/dev/null || test $? = 1
git grep -q three
echo OK gc
exit 45
