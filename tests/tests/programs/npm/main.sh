# Install a package of a local file with its install script, then run a script of the app that uses it.
set -eu
export npm_config_offline=true npm_config_audit=false npm_config_fund=false npm_config_update_notifier=false
npm pack --silent --pack-destination . ./greeting >/dev/null
cd app
npm install --silent --foreground-scripts ../greeting-1.0.0.tgz >/dev/null
test "$(cat node_modules/greeting/installed)" = yes
echo OK install
exec npm run --silent start
