// The rules beside this file and the dashboard as a mixin (https://monitoring.mixins.dev), for those who
// put Prometheus and Grafana together with jsonnet:
//
//   local tmlProxy = (import 'tml-proxy/config/prometheus/mixin.libsonnet') + {
//     _config+:: { tmlProxyJob: 'proxies' },
//   };
//
// std.parseYaml has to be there: go-jsonnet 0.18, or jsonnet 0.22.
{
  _config+:: {
    // The job of Prometheus that scrapes tml-proxy.
    tmlProxyJob: 'tml-proxy',
    // What every rule and every panel asks of that job's series.
    tmlProxySelector: 'job="%s"' % self.tmlProxyJob,
  },

  local withJob(text) = std.strReplace(text, 'job="tml-proxy"', $._config.tmlProxySelector),
  local groups = std.parseYaml(withJob(importstr 'tml-proxy.rules.yml')).groups,
  local record(group) = std.objectHas(group.rules[0], 'record'),

  prometheusRules+:: {
    groups+: [group for group in groups if record(group)],
  },

  prometheusAlerts+:: {
    groups+: [group for group in groups if !record(group)],
  },

  grafanaDashboards+:: {
    local dashboard = std.parseJson(importstr '../grafana/tml-proxy.json'),
    // Expressions are strings inside of it, in which quotes are escaped otherwise than in the file.
    local renamed(value) =
      if std.isString(value) then withJob(value)
      else if std.isArray(value) then [renamed(each) for each in value]
      else if std.isObject(value) then { [key]: renamed(value[key]) for key in std.objectFields(value) }
      else value,
    'tml-proxy.json': renamed(dashboard),
  },
}
