#!/bin/sh
# The classic parser of prometheus_client takes an OpenMetrics exemplar for a time stamp.
#
# Guess: the parser of the text format 0.0.4, which has no exemplars, refuses a line that has one.
# Seen (prometheus_client 0.26.0, Python 3): it raises nothing, and the exemplar's value, as milliseconds, becomes the
# sample's time stamp.
# The parser for OpenMetrics reads the same line right.
#
# For whoever tests /metrics: use the parser for OpenMetrics, and end the text with `# EOF`.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

python3 -m venv env
env/bin/pip install --quiet prometheus_client==0.26.0
cat >main.py <<'PYTHON'
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client import parser as classic

text = """# TYPE wait histogram
wait_bucket{le="1.0"} 3 # {trace="a"} 0.25
wait_bucket{le="+Inf"} 4
wait_count 4
wait_sum 5.5
"""

def first(families):
    return next(iter(families)).samples[0]

sample = first(classic.text_string_to_metric_families(text))
print("classic: time stamp", sample.timestamp, "exemplar", sample.exemplar)
sample = first(openmetrics.text_string_to_metric_families(text + "# EOF\n"))
print("OpenMetrics: time stamp", sample.timestamp, "exemplar", sample.exemplar.value)
PYTHON
env/bin/python main.py | tee seen
cat >expected <<'TEXT'
classic: time stamp 0.00025 exemplar None
OpenMetrics: time stamp None exemplar 0.25
TEXT
diff expected seen
