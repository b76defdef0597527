#!/usr/bin/env bash
# OpenMetrics: the page of a program that has no metric yet.
#
# Seen: prom-client 15.1.3 with OPENMETRICS_CONTENT_TYPE writes an empty line before "# EOF" as long as
# its registry is empty. OpenMetrics has no empty lines, and Prometheus 2.42 calls the target down:
# "\n" is not a valid start token. With one metric all is well; in the older text format an empty page is.
#
# Bitten: services that make their metrics at the first connection: after each start an alert for a target
# that is down. Register one metric at the start.
#
# Exit code: 0 if that is still so. Needs node (18 or later), npm, the registry of npm and prometheus.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" prom-client@15.1.3 >/dev/null
cat >probe.js <<'JS'
const { Registry, Gauge } = require('prom-client');
const { spawn } = require('child_process');
const fs = require('fs');
const http = require('http');

const serve = (answer) => new Promise((done) => {
  const server = http.createServer(answer).listen(0, '127.0.0.1', () => done(server));
});

(async () => {
  const kinds = [];
  for (const format of ['OPENMETRICS_CONTENT_TYPE', 'PROMETHEUS_CONTENT_TYPE'])
    for (const metrics of [0, 1]) {
      const registry = new Registry();
      registry.setContentType(Registry[format]);
      if (metrics) new Gauge({ name: 'sessions', help: 'Now.', registers: [registry] }).set(1);
      const server = await serve(async (_, response) => {
        response.setHeader('Content-Type', registry.contentType);
        response.end(await registry.metrics());
      });
      kinds.push({ title: `${format} ${metrics}`, target: `127.0.0.1:${server.address().port}` });
    }
  const own = await serve(() => {});
  const listen = `127.0.0.1:${own.address().port}`;
  await new Promise((done) => own.close(done));
  fs.writeFileSync('prometheus.yml', JSON.stringify({
    global: { scrape_interval: '1s', scrape_timeout: '1s' },
    scrape_configs: [{ job_name: 'x', static_configs: [{ targets: kinds.map((kind) => kind.target) }] }],
  }));
  const prometheus = spawn('prometheus',
    ['--config.file=prometheus.yml', '--storage.tsdb.path=data', `--web.listen-address=${listen}`],
    { stdio: 'ignore' });
  for (let tries = 0; tries < 120; tries++) {
    await new Promise((done) => setTimeout(done, 500));
    const answer = await fetch(`http://${listen}/api/v1/targets`).then((page) => page.json()).catch(() => null);
    const targets = answer?.data?.activeTargets ?? [];
    if (targets.length < kinds.length || targets.some((target) => target.health === 'unknown')) continue;
    for (const { title, target } of kinds) {
      const found = targets.find((one) => one.labels.instance === target);
      console.log(title, found.health, found.lastError);
    }
    break;
  }
  prometheus.on('exit', () => process.exit());
  prometheus.kill();
})();
JS
node probe.js | sed 's/ *$//' | tee seen
diff seen - <<'SEEN'
OPENMETRICS_CONTENT_TYPE 0 down "INVALID" "\n" is not a valid start token
OPENMETRICS_CONTENT_TYPE 1 up
PROMETHEUS_CONTENT_TYPE 0 up
PROMETHEUS_CONTENT_TYPE 1 up
SEEN
