"""The words that head the fields of an answer in `easel my`, and the fields that say nothing to people."""

# Names that mean something only to programs, or beside the text of the API's document.
_WORDS = {
    "errors.data": "faults",
    "fast_image_units_max": "image units at most in a fast pool",
    "missing": "why there is no forecast",
    "most": "at most",
    "n": "number of images",
    "of": "counted for",
    "param": "field",
    "progress.steps_total": "steps in all",
    "quantity_most": "quantity at most",
    "queue.ahead_in_your_account": "ahead of it in your account",
    "queue.eta_seconds": "seconds to its end, estimated",
    "queue.position_is_exact": "position is exact",
    "queue.waits_for": "waits for",
    "remedy": "what to do",
    "request_counts.completed": "requests completed",
    "request_counts.failed": "requests failed",
    "request_counts.total": "requests in all",
    "retention.job_days": "days that jobs are stored",
    "retention.output_days": "days that images are stored",
    "retryable": "retry helps",
    "sha256": "SHA-256",
    "side_max": "longest side",
    "side_min": "shortest side",
    "size_bytes": "bytes",
    "size_default": "default size",
    "steps_default": "default steps",
    "steps_max": "most steps",
    "text": "what happened",
    "urls.cancel": "URL to cancel it",
    "urls.events": "URL of its events",
    "urls.feedback": "URL for feedback",
    "urls.get": "URL",
    "usage.cost_details": "cost",
    "usage.cost_details.lines": "cost by meter",
    "usage.input_tokens_details.image_tokens": "input tokens of images",
    "usage.input_tokens_details.text_tokens": "input tokens of text",
    "value": "at most",
    "versions.version": "versions",
    "waiting_for.code": "waits for",
    "waiting_for.message": "why it waits",
}
_SPELLED = {"api": "API", "csv": "CSV", "gb": "GB", "gpu": "GPU", "html": "HTML", "pdf": "PDF", "url": "URL"}
# Objects whose fields need no word for the object that they are in.
_SILENT = ("progress", "queue", "usage")
# What is said by another field: the amount with its currency, or the command itself.
_UNSAID = {"amount_micros", "errors.object", "object", "usage.cost"}


def is_shown(path: str) -> bool:
    """Return True for a field that people are shown. The path of a field within a field has a dot."""
    return path not in _UNSAID


def heading(path: str) -> str:
    """Return the words for a field: `GPU seconds` for `usage.gpu_seconds`.

    What the tenant named itself stays as it is: a key of its metadata, or a label that costs are grouped by.
    """
    if words := _WORDS.get(path):
        return words
    parent, _, own = path.partition(".")
    if parent == "group" and own:
        return own
    if parent in ("metadata", "labels") and own:
        return f"{parent} {own}"
    named = own if own and parent in _SILENT else path
    return " ".join(_SPELLED.get(word, word) for word in named.replace(".", "_").split("_"))
