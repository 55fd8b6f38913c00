//! What each series is, for `/metrics` to say.

use metrics::Unit;

use super::BATCH_ROWS;

/// Name, unit and meaning.
pub(super) const DESCRIPTIONS: &[(&str, Option<Unit>, &str)] = &[
    (
        "firebox_build_info",
        None,
        "Always 1; the labels say what runs.",
    ),
    (
        "firebox_requests_total",
        None,
        "Requests by function, version and class of status.",
    ),
    (
        "firebox_request_seconds",
        Some(Unit::Seconds),
        "From a request's head to its answer.",
    ),
    (
        "firebox_request_queue_seconds",
        Some(Unit::Seconds),
        "Waiting for an instance or thread.",
    ),
    (
        "firebox_request_cold_seconds",
        Some(Unit::Seconds),
        "Waiting for code and weights; cold requests only.",
    ),
    (
        "firebox_request_guest_seconds",
        Some(Unit::Seconds),
        "Computing in the instance.",
    ),
    (
        "firebox_request_compute_seconds",
        Some(Unit::Seconds),
        "Computing models.",
    ),
    (
        "firebox_cold_starts_total",
        None,
        "Requests that found their version not fully loaded.",
    ),
    (
        "firebox_requests_in_flight",
        None,
        "Requests between head and answer.",
    ),
    ("firebox_versions", None, "Deployed versions."),
    (
        "firebox_versions_loaded",
        None,
        "Versions in memory, by residency.",
    ),
    (
        "firebox_weight_bytes",
        Some(Unit::Bytes),
        "Weights in memory.",
    ),
    (
        "firebox_compute_queue_length",
        None,
        "Calls of models that wait for a thread, of callers and of the batch tier.",
    ),
    (
        "firebox_model_runs_total",
        None,
        "Runs of models, each for one call or several.",
    ),
    (
        BATCH_ROWS,
        None,
        "Rows in each run of models with batching.",
    ),
    (
        "firebox_batches_retried_total",
        None,
        "Shared runs that failed, after which each call had one of its own.",
    ),
    (
        "firebox_admission_running",
        None,
        "Requests that have an instance, by tier.",
    ),
    (
        "firebox_admission_waiting",
        None,
        "Requests that wait for an instance, by tier.",
    ),
    (
        "firebox_admission_refused_total",
        None,
        "Requests that were not let in, by tier and reason.",
    ),
    (
        "firebox_instances_idle",
        None,
        "Instances that are kept for a next request, of functions that ask for reuse.",
    ),
    (
        "firebox_instances_spare",
        None,
        "Instances that are made before a request asks for them, and those that make room for them.",
    ),
    ("firebox_connections", None, "Open connections."),
    ("firebox_grpc_streams", None, "Open ModelStreamInfer calls."),
    (
        "firebox_connections_refused_total",
        None,
        "Connections that were closed because there were too many.",
    ),
    (
        "firebox_connections_timed_out_total",
        None,
        "Connections and bodies that were given up because they were too slow, by what was waited for.",
    ),
    (
        "firebox_answers_cut_total",
        None,
        "Answers that were cut because their function failed after it had begun them.",
    ),
    ("firebox_uploads_total", None, "Uploads by result."),
    (
        "firebox_policy_changes_total",
        None,
        "Changes of traffic policies by result.",
    ),
    (
        "firebox_load_failures_total",
        None,
        "Loads of code or weights that failed.",
    ),
    (
        "firebox_residency_moves_total",
        None,
        "Moves of versions between cold, linked and resident, by reason.",
    ),
    (
        "firebox_evictions_total",
        None,
        "Versions that had to go for others.",
    ),
    (
        "firebox_loads_waiting_for_room",
        None,
        "Loads that wait for room in memory.",
    ),
    (
        "firebox_memory_budget_bytes",
        Some(Unit::Bytes),
        "What weights of models and mapped code may take.",
    ),
    (
        "firebox_memory_held_bytes",
        Some(Unit::Bytes),
        "What weights of models and mapped code take or are about to.",
    ),
    (
        "firebox_rollout_state",
        None,
        "1 for the state of a function's latest rollout, 0 for the others.",
    ),
    (
        "firebox_rollout_step",
        None,
        "The step of a function's latest rollout, from 1.",
    ),
    (
        "firebox_rollout_verdict",
        None,
        "The latest verdict of each guard: 1 pass, 0 not enough data, -1 fail.",
    ),
    (
        "firebox_rollouts_total",
        None,
        "Rollouts that have ended, by outcome.",
    ),
    ("firebox_jobs", None, "Jobs that are kept, by state."),
    (
        "firebox_job_oldest_queued_seconds",
        Some(Unit::Seconds),
        "How long the oldest of the queued jobs has waited; 0 where none waits.",
    ),
    (
        "firebox_job_items_total",
        None,
        "Items of jobs by function and outcome: succeeded, failed, retried.",
    ),
    (
        "firebox_shadow_requests_total",
        None,
        "Copies of requests to a shadow version, by result.",
    ),
    (
        "firebox_shadow_max_abs_difference",
        None,
        "The largest absolute difference of two numbers in answers.",
    ),
    (
        "firebox_shadow_max_rel_difference",
        None,
        "The largest relative difference of two numbers in answers.",
    ),
    (
        "firebox_cache_requests_total",
        None,
        "Requests to versions that keep answers: hit, coalesced (answered by an equal request that \
         ran), miss, bypass.",
    ),
    (
        "firebox_cache_bytes",
        Some(Unit::Bytes),
        "Kept answers in memory.",
    ),
    ("firebox_cache_entries", None, "Kept answers."),
    (
        "firebox_cache_evictions_total",
        None,
        "Kept answers that went: their time was over (ttl), their version's took too much \
         (max_bytes), all took too much (cache_memory), their version lost its traffic to a rollback \
         or is gone (dropped).",
    ),
];
