"""Every metric there is. Base units, bounded labels, and a sentence that says what a rise of it means.

Labels hold domains, outcomes and reason codes: words from our own tables, never a value from a message.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram, make_wsgi_app

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

RECEIVED = Counter("wardstream_received_total", "Messages a feed has read off the wire.", ["feed"])
HELD_BYTES = Gauge("wardstream_held_bytes", "Bytes of messages that a feed has read and not answered yet.")
ANSWERED = Counter(
    "wardstream_answered_total",
    "Answers a feed has given, by acknowledgement code and reason.",
    ["feed", "code", "reason"],
)
ANSWER_SECONDS = Histogram(
    "wardstream_answer_seconds", "From the last byte of a message to its answer.", ["feed"], buckets=SECONDS
)
CONNECTIONS = Gauge("wardstream_connections", "Open connections of a feed.", ["feed"])
CERTIFICATE_EXPIRY = Gauge(
    "wardstream_certificate_expiry_timestamp_seconds", "Unix time at which a feed's certificate ends.", ["feed"]
)
TLS_FAILURES = Counter(
    "wardstream_tls_failures_total",
    "TLS handshakes that failed, by why (no_certificate, bad_certificate, not_tls, version, alert, other).",
    ["feed", "reason"],
)
PUBLISHED = Counter("wardstream_published_total", "Events confirmed by the broker.", ["domain"])
DUPLICATES = Counter(
    "wardstream_duplicates_total", "Exact repeats answered as before, not published again.", ["domain"]
)
REUSED_IDS = Counter(
    "wardstream_control_ids_reused_total",
    "Messages with the control id of an earlier one and another body.",
    ["domain"],
)
PROCESSED = Counter(
    "wardstream_processed_total",
    "Events an agent has finished, by outcome (indexed, dead_lettered, dropped) and reason.",
    ["domain", "outcome", "reason"],
)
DOCUMENTS = Counter("wardstream_documents_total", "Documents confirmed by the index.", ["domain"])
READ_SECONDS = Histogram(
    "wardstream_read_seconds", "Unseal, read, validate and seal one batch.", ["domain"], buckets=SECONDS
)
INDEX_SECONDS = Histogram(
    "wardstream_index_seconds", "One bulk request, retries included.", ["domain"], buckets=SECONDS
)
FAILURES = Counter(
    "wardstream_target_failures_total",
    "Requests that a server failed and that are tried again, by why (connection, 429, 503, busy).",
    ["target", "reason"],
)
CIRCUIT_OPEN = Gauge("wardstream_circuit_open", "1 while a server counts as away and is only probed.", ["target"])
EVENT_SECONDS = Histogram(
    "wardstream_event_seconds", "From reception at the edge to confirmed by the index.", ["domain"], buckets=SECONDS
)
LAG_EVENTS = Gauge("wardstream_lag_events", "Events on the topic that this worker has yet to take.", ["domain"])
OLDEST_SECONDS = Gauge(
    "wardstream_oldest_event_seconds", "Age of the oldest event that this worker has not finished.", ["domain"]
)
SIGNALS = Counter("wardstream_signals_total", "Signals derived from events, by kind.", ["domain", "signal"])
MERGES = Counter("wardstream_merges_total", "Patients merged into a survivor.", ["domain"])
REVEALS = Counter("wardstream_reveals_total", "Sealed fields shown in clear, by purpose of use.", ["domain", "purpose"])
SCORES = Counter(
    "wardstream_scores_total", "Scores made on the stream, by model and mode (promoted, shadow).", ["model", "mode"]
)
SCORING_ROWS = Gauge("wardstream_scoring_rows", "Events that wait for the process that scores them.")
MODEL_DRIFT = Gauge(
    "wardstream_model_drift",
    "Population stability index of a model's last scores against those of its training; above 0.25 look.",
    ["model"],
)
MODEL_CALIBRATION = Gauge(
    "wardstream_model_calibration_ratio", "Observed over expected events of a model's last outcomes.", ["model"]
)
# Of sites and units whose beds operations events have declared, and of no others: a message may name anything.
BEDS = Gauge("wardstream_beds", "Beds by status (HL7 table 0116), as events tell it.", ["site", "unit", "status"])
OCCUPANCY = Gauge(
    "wardstream_bed_occupancy_ratio", "Beds in which somebody lies, of those not closed.", ["site", "unit"]
)
WAITING = Gauge("wardstream_waiting_requests", "Patients who wait for a bed, by priority.", ["site", "priority"])
CONFLICTS = Gauge("wardstream_bed_conflicts", "What events tell and cannot be so, by kind.", ["site", "kind"])
SITES_LEFT_OUT = Counter(
    "wardstream_sites_left_out_total",
    "Events of sites that have no live state in this worker, since it follows as many as it may.",
    ["domain"],
)
SITE_SIGNALS = Gauge(
    "wardstream_site_signals", "Signals of a site that are raised and not over, by kind.", ["site", "unit", "signal"]
)
PLANS = Counter(
    "wardstream_plans_total", "Plans of sites, by status (optimal, feasible, infeasible, failed).", ["status"]
)
PLAN_SECONDS = Histogram(
    "wardstream_plan_seconds", "From a site's first change to a plan that knows of it, in the index.", buckets=SECONDS
)
PLAN_GAP = Gauge(
    "wardstream_plan_gap_ratio", "Share of a site's plan's cost that is not proven to be needed.", ["site"]
)
PLAN_TIME = Gauge(
    "wardstream_plan_timestamp_seconds", "Unix time of the state that a site's plan is made for.", ["site"]
)
PLAN_BEDLESS = Gauge(
    "wardstream_plan_bedless", "Patients who must have a bed by now and get none in a site's plan.", ["site"]
)
POOL_WAITING = Gauge("wardstream_pool_waiting_jobs", "Jobs that wait for a process of a domain's pool.", ["domain"])
_CHART = ["site", "scope", "name", "measure"]
OUTCOME_CASES = Gauge("wardstream_outcome_cases", "Outcomes on a chart; of charts of at least 11.", _CHART)
OUTCOME_RATIO = Gauge("wardstream_outcome_ratio", "Observed over expected events of a chart.", _CHART)
OUTCOME_CUSUM = Gauge(
    "wardstream_outcome_cusum_ratio", "Where a chart's CUSUM stands, as a share of its limit.", [*_CHART, "side"]
)
IMAGES = Counter(
    "wardstream_images_total",
    "Images whose pixels were looked at, by how that ended (done, no_pixels, bad_pixels, timed_out, ...).",
    ["processing"],
)
STUDIES_OPEN = Gauge("wardstream_studies_open", "Studies that wait for the end of their quiet period in this worker.")

CATALOGUE = (
    RECEIVED,
    HELD_BYTES,
    ANSWERED,
    ANSWER_SECONDS,
    CONNECTIONS,
    CERTIFICATE_EXPIRY,
    TLS_FAILURES,
    PUBLISHED,
    DUPLICATES,
    REUSED_IDS,
    PROCESSED,
    DOCUMENTS,
    READ_SECONDS,
    INDEX_SECONDS,
    FAILURES,
    CIRCUIT_OPEN,
    EVENT_SECONDS,
    LAG_EVENTS,
    OLDEST_SECONDS,
    SIGNALS,
    MERGES,
    REVEALS,
    SCORES,
    SCORING_ROWS,
    MODEL_DRIFT,
    MODEL_CALIBRATION,
    BEDS,
    OCCUPANCY,
    WAITING,
    CONFLICTS,
    SITES_LEFT_OUT,
    SITE_SIGNALS,
    PLANS,
    PLAN_SECONDS,
    PLAN_GAP,
    PLAN_TIME,
    PLAN_BEDLESS,
    OUTCOME_CASES,
    OUTCOME_RATIO,
    OUTCOME_CUSUM,
    IMAGES,
    POOL_WAITING,
    STUDIES_OPEN,
)

page = make_wsgi_app()  # the catalogue in Prometheus' text format
