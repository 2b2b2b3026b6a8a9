"""Bodies, queries and answers of the API. `scripts/client` writes this module."""

from datetime import date
from typing import Annotated, Any, Literal, NotRequired, Required, TypedDict

from easel_client.transport import FileContent


class ApiIndex(TypedDict):
    """The addresses of this server's pages and calls."""

    object: str
    name: str
    version: str
    base_url: str
    reference: str
    openapi: str
    errors: str
    portal: str
    health: str


class AdapterInput(TypedDict, total=False):
    name: Required[str]
    scale: Annotated[float | None, "By default `1.0`."]


class ImagesInput(TypedDict, total=False):
    """`POST /v1/images/generations` of OpenAI, as of the gpt-image models."""

    prompt: Required[Annotated[str, "The text that the image is generated from."]]
    model: str | None
    n: Annotated[int | None, "By default `1`."]
    size: Annotated[str | None, '"auto" or WIDTHxHEIGHT, both multiples of 16. By default `"auto"`.']
    quality: Annotated[
        Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"] | None,
        '`low` takes half of the steps and the tier `fast`, `high` and above the tier `hd`; for the others the size decides. By default `"auto"`.',
    ]
    steps: Annotated[int | None, "Denoising steps."]
    seed: Annotated[
        int | None, "The same seed, prompt, size, steps, model version and adapters give the same image. -1 is random."
    ]
    cache: Annotated[
        bool | None,
        "True if a request with a seed may be answered with images that were generated for the same one. By default `true`.",
    ]
    adapters: list[AdapterInput] | None
    priority: Annotated[int | None, "Order among your own waiting jobs: the highest goes first. By default `0`."]
    expires_in_seconds: Annotated[int | None, "Time to generate in. A job that expires is not charged."]
    output_format: Annotated[Literal["png", "jpeg", "jpg", "webp"] | None, 'jpg is jpeg. By default `"png"`.']
    output_compression: Annotated[int | None, "By default `100`."]
    project: str | None
    user: Annotated[str | None, "Your end user."]
    safety_identifier: Annotated[str | None, "OpenAI's later name for `user`."]
    metadata: dict[str, str] | None
    num_inference_steps: Annotated[int | None, "Another name of `steps`."]
    step: Annotated[int | None, "Another name of `steps`."]
    width: Annotated[int | None, "With `height`, another form of `size`."]
    height: Annotated[int | None, "With `width`, another form of `size`."]
    background: Annotated[str | None, '`auto` or `opaque`. By default `"auto"`.']
    moderation: Annotated[str | None, '`auto`. By default `"auto"`.']
    style: Annotated[str | None, "Not supported: describe the style in the prompt."]
    negative_prompt: Annotated[str | None, "Not supported, unless it is blank."]
    guidance_scale: Annotated[float | None, "0: the model generates without guidance."]
    true_cfg_scale: Annotated[float | None, "0 or 1: the model generates without guidance."]
    cfg_scale: Annotated[float | None, "1: the model generates without guidance."]
    response_format: Annotated[
        Literal["b64_json", "url", "both"] | None, 'both: each image has `b64_json` and `url`. By default `"b64_json"`.'
    ]
    stream: Annotated[bool | None, "By default `false`."]
    cancel_on_disconnect: Annotated[
        bool | None,
        "What happens to the job when you disconnect before it has ended. True: it is canceled. False: it goes on. Left out: a queued job is canceled; one that is dispatched or running goes on for a minute, in which a retry can join it.",
    ]
    partial_images: Annotated[
        int | None, "With `stream`: previews of each image while it is generated. By default `0`."
    ]


class Image(TypedDict):
    b64_json: NotRequired[str]
    url: NotRequired[str]


class TokenDetails(TypedDict):
    text_tokens: int
    image_tokens: int


class CostLine(TypedDict):
    """The charges of one meter. `kind` is `usage`, `waiver` (what is not charged) or `correction`."""

    meter: str
    kind: str
    quantity: str
    amount: str
    amount_micros: int


class CostDetails(TypedDict):
    amount: str
    amount_micros: int
    currency: str
    lines: list[CostLine]


class JobUsage(TypedDict):
    """OpenAI's token counts (an image token is 16x16 pixels), and what was measured and charged. `cost` is a number in
    the account's currency, since gateways and SDKs read one; `cost_details` names the currency.
    """

    input_tokens: int
    input_tokens_details: TokenDetails
    output_tokens: int
    total_tokens: int
    cached: bool
    image_units: float
    gpu_seconds: float
    cost: float
    cost_details: CostDetails


class FieldWarning(TypedDict):
    """A field of a request that was ignored, with the code that it would have been refused with."""

    param: str
    code: str
    message: str


class Images(TypedDict):
    background: str
    output_format: str
    quality: str
    size: str
    created: int
    data: list[Image]
    tier: Literal["fast", "hd"]
    usage: JobUsage
    warnings: list[FieldWarning]
    job_id: str
    seed: int


class QuoteInput(TypedDict, total=False):
    """The body of a generation, and whether it would be a line of a batch."""

    prompt: Required[Annotated[str, "The text that the image is generated from."]]
    model: str | None
    n: Annotated[int | None, "By default `1`."]
    size: Annotated[str | None, '"auto" or WIDTHxHEIGHT, both multiples of 16. By default `"auto"`.']
    quality: Annotated[
        Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"] | None,
        '`low` takes half of the steps and the tier `fast`, `high` and above the tier `hd`; for the others the size decides. By default `"auto"`.',
    ]
    steps: Annotated[int | None, "Denoising steps."]
    seed: Annotated[
        int | None, "The same seed, prompt, size, steps, model version and adapters give the same image. -1 is random."
    ]
    cache: Annotated[
        bool | None,
        "True if a request with a seed may be answered with images that were generated for the same one. By default `true`.",
    ]
    adapters: list[AdapterInput] | None
    priority: Annotated[int | None, "Order among your own waiting jobs: the highest goes first. By default `0`."]
    expires_in_seconds: Annotated[int | None, "Time to generate in. A job that expires is not charged."]
    output_format: Annotated[Literal["png", "jpeg", "jpg", "webp"] | None, 'jpg is jpeg. By default `"png"`.']
    output_compression: Annotated[int | None, "By default `100`."]
    project: str | None
    user: Annotated[str | None, "Your end user."]
    safety_identifier: Annotated[str | None, "OpenAI's later name for `user`."]
    metadata: dict[str, str] | None
    num_inference_steps: Annotated[int | None, "Another name of `steps`."]
    step: Annotated[int | None, "Another name of `steps`."]
    width: Annotated[int | None, "With `height`, another form of `size`."]
    height: Annotated[int | None, "With `width`, another form of `size`."]
    background: Annotated[str | None, '`auto` or `opaque`. By default `"auto"`.']
    moderation: Annotated[str | None, '`auto`. By default `"auto"`.']
    style: Annotated[str | None, "Not supported: describe the style in the prompt."]
    negative_prompt: Annotated[str | None, "Not supported, unless it is blank."]
    guidance_scale: Annotated[float | None, "0: the model generates without guidance."]
    true_cfg_scale: Annotated[float | None, "0 or 1: the model generates without guidance."]
    cfg_scale: Annotated[float | None, "1: the model generates without guidance."]
    response_format: Annotated[
        Literal["b64_json", "url", "both"] | None, 'both: each image has `b64_json` and `url`. By default `"b64_json"`.'
    ]
    stream: Annotated[bool | None, "By default `false`."]
    cancel_on_disconnect: Annotated[
        bool | None,
        "What happens to the job when you disconnect before it has ended. True: it is canceled. False: it goes on. Left out: a queued job is canceled; one that is dispatched or running goes on for a minute, in which a retry can join it.",
    ]
    partial_images: Annotated[
        int | None, "With `stream`: previews of each image while it is generated. By default `0`."
    ]
    batch: Annotated[bool | None, "True for the price of a line of a batch. By default `false`."]


class PricePart(TypedDict):
    quantity: str
    unit_price: str


class Money(TypedDict):
    """An amount as the API answers it."""

    amount: str
    amount_micros: int
    currency: str


class QuoteLine(TypedDict):
    meter: str
    quantity: str
    quantity_most: str
    price_book: str
    mode: str
    used_before: str
    parts: list[PricePart]
    contract: str | None
    discount: str
    amount: Money
    list_amount: Money
    most: Money


class JobError(TypedDict):
    code: str
    message: str


class Quote(TypedDict):
    """Quantities and prices are texts, so that they are exact."""

    object: str
    model: str
    model_version: int
    size: str
    steps: int
    n: int
    tier: Literal["fast", "hd"]
    cached: bool
    batch: bool
    lines: list[QuoteLine]
    expected: Money
    most: Money
    available: Money
    warnings: list[FieldWarning]
    admitted: bool
    refusal: JobError | None


class FilesListQuery(TypedDict, total=False):
    after: Annotated[str | None, "The id that the page begins after."]
    limit: int | None
    order: Literal["asc", "desc"] | None
    purpose: Literal["batch", "batch_output"] | None


class File(TypedDict):
    """OpenAI's `FileObject`, with times in Unix seconds. `bytes` of an output is 0: it is written when it is read."""

    id: str
    object: str
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"]
    status_details: str | None


class FileList(TypedDict):
    """OpenAI's list: the next page is the one `after` its `last_id`. Without rows or ids both are null."""

    object: str
    data: list[File]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ExpiresAfterInput(TypedDict, total=False):
    anchor: Required[Literal["created_at"]]
    seconds: Required[Annotated[int, "Counted from the time that the file was made at."]]


class FileUploadInput(TypedDict, total=False):
    purpose: Required[Literal["batch"]]
    file: Required[Annotated[FileContent, "JSON Lines: a request on each line."]]
    expires_after: Annotated[
        ExpiresAfterInput | None,
        "When the file is deleted; without it after 30 days. As JSON, or as the two fields `expires_after[anchor]` and `expires_after[seconds]`, as OpenAI's clients send it.",
    ]


class FileDeleted(TypedDict):
    id: str
    object: str
    deleted: bool


class BatchesListQuery(TypedDict, total=False):
    after: Annotated[str | None, "The id that the page begins after."]
    limit: int | None


class BatchFault(TypedDict):
    code: str
    line: int | None
    message: str
    param: str | None


class BatchFaults(TypedDict):
    object: str
    data: list[BatchFault]


class BatchCounts(TypedDict):
    total: int
    completed: int
    failed: int


class BatchWaitsFor(TypedDict):
    code: str
    message: str


class Batch(TypedDict):
    """OpenAI's `Batch`, with times in Unix seconds, and with `waiting_for`: what its next line waits for, beside a
    place in a pool. The batch goes on by itself once that has passed.
    """

    id: str
    object: str
    endpoint: str
    errors: BatchFaults | None
    input_file_id: str
    completion_window: str
    status: Literal[
        "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
    ]
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: BatchCounts
    waiting_for: BatchWaitsFor | None
    metadata: dict[str, str] | None


class BatchList(TypedDict):
    """OpenAI's list: the next page is the one `after` its `last_id`. Without rows or ids both are null."""

    object: str
    data: list[Batch]
    first_id: str | None
    last_id: str | None
    has_more: bool


class BatchInput(TypedDict, total=False):
    input_file_id: Required[Annotated[str, "A file that was uploaded with the purpose `batch`."]]
    endpoint: Required[Literal["/v1/images/generations"]]
    completion_window: Required[Annotated[str, "`24h`, or another whole number of hours from `1h` to `168h`."]]
    metadata: dict[str, str] | None
    output_expires_after: Annotated[
        ExpiresAfterInput | None,
        "When its output files are deleted, from their own `created_at`; without it after 30 days.",
    ]


class JobsListQuery(TypedDict, total=False):
    after: Annotated[str | None, "The id that the page begins after."]
    limit: int | None
    status: Literal["queued", "dispatched", "running", "succeeded", "failed", "canceled", "expired"] | None


class UsedAdapter(TypedDict):
    name: str
    version: int
    scale: float


class ArmOfJob(TypedDict):
    name: str
    arm: str


class Progress(TypedDict):
    steps_done: int
    steps_total: int


class JobImage(TypedDict):
    url: str
    seed: int
    size_bytes: int


class JobUrls(TypedDict):
    get: str
    events: str
    cancel: str
    feedback: str


class QueuePlace(TypedDict):
    """The place of an unfinished job. `position` is 1 for the job that is dispatched next, and null once it is.
    `position_is_exact` is false for a job behind the first 500, whose `position` is then the least that it can be.
    `waits_for` is the reason for which it waits now.
    """

    position: int | None
    position_is_exact: bool
    ahead_in_your_account: int | None
    waits_for: str | None
    eta_seconds: float | None


class TimelineEvent(TypedDict):
    """An event of a job. A `waited` has the `seconds` and the `reason` of the wait that began then."""

    time: str
    event: str
    attempt: int | None
    seconds: float | None
    reason: str | None
    code: str | None
    worker: str | None


class Job(TypedDict):
    id: str
    object: str
    request_id: str | None
    status: Literal["queued", "dispatched", "running", "succeeded", "failed", "canceled", "expired"]
    created_at: str
    expires_at: str
    finished_at: str | None
    deleted_at: str | None
    cached_from: str | None
    model: str
    model_version: int
    prompt: str | None
    n: int
    size: str
    quality: Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"]
    tier: Literal["fast", "hd"]
    steps: int
    seed: int
    adapters: list[UsedAdapter]
    experiment: ArmOfJob | None
    project: str
    metadata: dict[str, str]
    attempts: int
    progress: Progress
    images: list[JobImage]
    warnings: list[FieldWarning]
    usage: JobUsage | None
    error: JobError | None
    urls: JobUrls
    queue: NotRequired[QueuePlace | None]
    timeline: NotRequired[list[TimelineEvent]]


class JobList(TypedDict):
    """OpenAI's list: the next page is the one `after` its `last_id`. Without rows or ids both are null."""

    object: str
    data: list[Job]
    first_id: str | None
    last_id: str | None
    has_more: bool


class JobInput(TypedDict, total=False):
    """The fields of a generation: OpenAI's, ours, and those of other image APIs."""

    prompt: Required[Annotated[str, "The text that the image is generated from."]]
    model: str | None
    n: Annotated[int | None, "By default `1`."]
    size: Annotated[str | None, '"auto" or WIDTHxHEIGHT, both multiples of 16. By default `"auto"`.']
    quality: Annotated[
        Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"] | None,
        '`low` takes half of the steps and the tier `fast`, `high` and above the tier `hd`; for the others the size decides. By default `"auto"`.',
    ]
    steps: Annotated[int | None, "Denoising steps."]
    seed: Annotated[
        int | None, "The same seed, prompt, size, steps, model version and adapters give the same image. -1 is random."
    ]
    cache: Annotated[
        bool | None,
        "True if a request with a seed may be answered with images that were generated for the same one. By default `true`.",
    ]
    adapters: list[AdapterInput] | None
    priority: Annotated[int | None, "Order among your own waiting jobs: the highest goes first. By default `0`."]
    expires_in_seconds: Annotated[int | None, "Time to generate in. A job that expires is not charged."]
    output_format: Annotated[Literal["png", "jpeg", "jpg", "webp"] | None, 'jpg is jpeg. By default `"png"`.']
    output_compression: Annotated[int | None, "By default `100`."]
    project: str | None
    user: Annotated[str | None, "Your end user."]
    safety_identifier: Annotated[str | None, "OpenAI's later name for `user`."]
    metadata: dict[str, str] | None
    num_inference_steps: Annotated[int | None, "Another name of `steps`."]
    step: Annotated[int | None, "Another name of `steps`."]
    width: Annotated[int | None, "With `height`, another form of `size`."]
    height: Annotated[int | None, "With `width`, another form of `size`."]
    background: Annotated[str | None, '`auto` or `opaque`. By default `"auto"`.']
    moderation: Annotated[str | None, '`auto`. By default `"auto"`.']
    style: Annotated[str | None, "Not supported: describe the style in the prompt."]
    negative_prompt: Annotated[str | None, "Not supported, unless it is blank."]
    guidance_scale: Annotated[float | None, "0: the model generates without guidance."]
    true_cfg_scale: Annotated[float | None, "0 or 1: the model generates without guidance."]
    cfg_scale: Annotated[float | None, "1: the model generates without guidance."]


class FeedbackInput(TypedDict, total=False):
    score: Required[Annotated[float, "From 0 (bad) to 1 (good)."]]
    comment: str | None


class Feedback(TypedDict):
    object: str
    job_id: str
    score: float
    comment: str
    created_at: str


class ExperimentsListQuery(TypedDict, total=False):
    after: Annotated[str | None, "The id that the page begins after."]
    limit: int | None


class ArmAdapter(TypedDict):
    name: str
    scale: float


class Arm(TypedDict):
    name: str
    weight: int
    version: int | None
    adapters: list[ArmAdapter]
    steps: int | None


class Experiment(TypedDict):
    id: str
    object: str
    name: str
    model: str
    status: Literal["running", "stopped"]
    started_at: str
    stopped_at: str | None
    arms: list[Arm]


class ExperimentList(TypedDict):
    """OpenAI's list: the next page is the one `after` its `last_id`. Without rows or ids both are null."""

    object: str
    data: list[Experiment]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ArmInput(TypedDict, total=False):
    name: Required[str]
    weight: Required[Annotated[int, "Percent of the callers; the weights of all arms sum to 100."]]
    version: Annotated[int | None, "A version of the model; by default as the model routes."]
    adapters: list[AdapterInput] | None
    steps: int | None


class ExperimentInput(TypedDict, total=False):
    name: Required[str]
    model: str | None
    arms: Required[list[ArmInput]]


class Comparison(TypedDict):
    """A mean with its interval, and its difference from the first arm with the `p_value` of that."""

    callers: int
    mean: float | None
    low: float | None
    high: float | None
    difference: float | None
    p_value: float | None


class ArmReport(TypedDict):
    arm: str
    jobs: int
    succeeded: int
    failed: int
    feedback: int
    cost: Money
    seconds_p50: float | None
    seconds_p95: float | None
    score: Comparison
    error_rate: Comparison
    seconds: Comparison
    job_cost_micros: Comparison


class ExperimentReport(TypedDict):
    id: str
    object: str
    name: str
    model: str
    status: Literal["running", "stopped"]
    started_at: str
    stopped_at: str | None
    arms: list[Arm]
    report: list[ArmReport]


class RolloutsListQuery(TypedDict, total=False):
    after: Annotated[str | None, "The id that the page begins after."]
    limit: int | None
    model: str | None


class Rollout(TypedDict):
    id: str
    object: str
    model: str
    stable_version: int
    candidate_version: int
    status: Literal["running", "promoted", "rolled_back"]
    stages: list[int]
    candidate_percent: int
    verdict: str
    started_at: str
    ended_at: str | None


class RolloutList(TypedDict):
    """OpenAI's list: the next page is the one `after` its `last_id`. Without rows or ids both are null."""

    object: str
    data: list[Rollout]
    first_id: str | None
    last_id: str | None
    has_more: bool


class AdaptersListQuery(TypedDict, total=False):
    after: Annotated[str | None, "The id that the page begins after."]
    limit: int | None


class AdapterVersion(TypedDict):
    version: int
    sha256: str
    size_bytes: int
    rank: int
    modules: int
    created_at: str


class Adapter(TypedDict):
    id: str
    object: str
    name: str
    model: str
    status: Literal["ready", "retired"]
    created_at: str
    versions: list[AdapterVersion]


class AdapterList(TypedDict):
    """OpenAI's list: the next page is the one `after` its `last_id`. Without rows or ids both are null."""

    object: str
    data: list[Adapter]
    first_id: str | None
    last_id: str | None
    has_more: bool


class AdapterUploadInput(TypedDict, total=False):
    name: Required[Annotated[str, "Lower-case letters, digits and inner hyphens."]]
    file: Required[Annotated[FileContent, "LoRA weights as safetensors."]]
    model: Annotated[str | None, "The base model that it was trained on."]


class Quality(TypedDict):
    """A quality, its tier and its steps. The size decides for a quality without a tier."""

    quality: Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"]
    tier: str | None
    steps: int


class Model(TypedDict):
    """OpenAI's `Model`, with its sizes, steps and qualities. An alias has those of the model that it stands for."""

    id: str
    object: str
    created: int
    owned_by: str
    alias_of: str | None
    version: int
    default: bool
    size_default: str
    side_min: int
    side_max: int
    steps_default: int
    steps_max: int
    qualities: list[Quality]
    fast_image_units_max: float


class ModelList(TypedDict):
    """OpenAI's list: the next page is the one `after` its `last_id`. Without rows or ids both are null."""

    object: str
    data: list[Model]
    first_id: str | None
    last_id: str | None
    has_more: bool


class CountLimit(TypedDict):
    """A limit of requests, jobs, pixels, steps or uploaded files, which are whole."""

    of: Literal["account", "api_key"]
    resets_at: str | None
    limit: Literal[
        "requests_per_minute",
        "concurrent_jobs_max",
        "queued_jobs_max",
        "pixels_max",
        "steps_max",
        "stored_files_max",
        "stored_bytes_max",
        "uploads_per_minute",
    ]
    value: int
    used: int | None
    remaining: int | None


class UnitLimit(TypedDict):
    """The limit of image units, of which a small image is a fraction."""

    of: Literal["account", "api_key"]
    resets_at: str | None
    limit: Literal["image_units_per_month"]
    value: float
    used: float | None
    remaining: float | None


class Retention(TypedDict):
    output_days: int
    job_days: int


class Key(TypedDict):
    """The key that the request came with: what it may do, until when, and from which networks (none: from all)."""

    key_id: str
    name: str
    project: str
    scopes: list[str]
    expires_at: str | None
    addresses: list[str]


class Quota(TypedDict):
    """Each limit that is set, those of uploaded files, how long your data is retained, and your key."""

    object: str
    data: list[CountLimit | UnitLimit]
    first_id: str | None
    last_id: str | None
    has_more: bool
    retention: Retention
    image_url_minutes: int
    api_key: Key


class UsageGetQuery(TypedDict, total=False):
    end: Annotated[str | date | None, "Last day (UTC), by default today."]
    group_by: Annotated[str | None, "Comma-separated: project, model, adapter, tier, day."]
    start: Annotated[str | date | None, "First day (UTC), by default the first of the last one's month."]


class UsageRow(TypedDict):
    """The values that the rows were grouped by, and the sums of their group."""

    image_units: float
    gpu_seconds: float
    storage_gb_seconds: float
    cost: Money
    project: NotRequired[str]
    model: NotRequired[str]
    adapter: NotRequired[str]
    tier: NotRequired[str]
    day: NotRequired[str]
    requests: int


class UsageRowList(TypedDict):
    object: str
    data: list[UsageRow]
    start: str
    end: str
    total: Money


class CostsGetQuery(TypedDict, total=False):
    end: Annotated[str | date | None, "Last day (UTC), by default today."]
    group_by: Annotated[
        str | None,
        "Comma-separated, at most four: day, project, model, version, adapter, quality, tier, resolution, key, meter, label:NAME.",
    ]
    sort: Annotated[Literal["group", "amount"] | None, "amount: the highest first."]
    start: Annotated[str | date | None, "First day (UTC), by default the first of the last one's month."]


class CostRow(TypedDict):
    image_units: float
    gpu_seconds: float
    storage_gb_seconds: float
    cost: Money
    group: dict[str, str]
    charges: int
    requests: int
    list_cost: Money


class CostRowList(TypedDict):
    object: str
    data: list[CostRow]
    start: str
    end: str
    total: Money


class Anomaly(TypedDict):
    day: str
    cost: Money
    usual: Money
    score: float


class Outlook(TypedDict):
    object: str
    month: str
    so_far: Money
    expected: Money | None
    low: Money | None
    high: Money | None
    missing: str | None
    confidence: float
    anomalies: list[Anomaly]


class ExportsFocusQuery(TypedDict, total=False):
    end: Annotated[str | date | None, "Last day (UTC), by default today."]
    format: Literal["csv", "parquet"] | None
    invoice: Annotated[int | None, "The number of a statement or credit note, to export all of it instead of days."]
    start: Annotated[str | date | None, "First day (UTC), by default the first of the last one's month."]


class ExportsCostsQuery(TypedDict, total=False):
    decimal: Annotated[Literal["point", "comma"] | None, "The decimal separator of the file."]
    end: Annotated[str | date | None, "Last day (UTC), by default today."]
    start: Annotated[str | date | None, "First day (UTC), by default the first of the last one's month."]


class ExportsEventsQuery(TypedDict, total=False):
    end: Annotated[str | date | None, "Last day (UTC), by default today."]
    start: Annotated[str | date | None, "First day (UTC), by default the first of the last one's month."]


class Grant(TypedDict):
    id: str
    category: Literal["paid", "promotional", "refund"]
    priority: int
    amount: Money
    remaining: Money
    created_at: str
    expires_at: str | None


class Balance(TypedDict):
    """Grants are listed in the order in which they are spent."""

    object: str
    available: Money
    credit: Money
    held: Money
    owed: Money
    credit_limit: Money
    grants: list[Grant]


class BudgetsListQuery(TypedDict, total=False):
    after: Annotated[str | None, "The id that the page begins after."]
    limit: int | None


class Budget(TypedDict):
    id: str
    object: str
    project: str | None
    api_key: str | None
    amount: Money
    hard_stop: bool
    spent: Money
    held: Money
    remaining: Money
    thresholds_reached: list[int]
    resets_at: str


class BudgetList(TypedDict):
    """OpenAI's list: the next page is the one `after` its `last_id`. Without rows or ids both are null."""

    object: str
    data: list[Budget]
    first_id: str | None
    last_id: str | None
    has_more: bool


class BudgetInput(TypedDict, total=False):
    """The budget of a project or a key if one is named, else of the account."""

    project: str | None
    api_key: Annotated[str | None, "The part of the key between `easel_sk_` and the next underscore."]
    amount_micros: Required[Annotated[int, "1000000 are 1 of your currency."]]
    currency: Annotated[str | None, "Checked against your account's if given."]
    hard_stop: Annotated[bool | None, "True to refuse requests that would exceed the budget. By default `false`."]


class StatementsListQuery(TypedDict, total=False):
    after: Annotated[str | None, "The id that the page begins after."]
    limit: int | None


class BilledTo(TypedDict):
    name: str
    address: str
    tax_id: str


class Documents(TypedDict):
    html: str
    pdf: str
    csv: str


class StatementSummary(TypedDict):
    id: str
    object: Literal["statement", "credit_note"]
    title: str
    number: int | None
    status: Literal["draft", "final"]
    corrects: str | None
    period_start: str
    period_end: str
    time_zone: str
    billed_to: BilledTo
    subtotal: Money
    tax_name: str
    tax_rate: str
    tax: Money
    total: Money
    finalised_at: str | None
    documents: Documents


class StatementSummaryList(TypedDict):
    """OpenAI's list: the next page is the one `after` its `last_id`. Without rows or ids both are null."""

    object: str
    data: list[StatementSummary]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Line(TypedDict):
    position: int
    project: str | None
    labels: dict[str, str]
    meter: str | None
    model: str | None
    kind: str
    description: str
    quantity: str | None
    charges: int
    amount: Money


class CurrentStatement(TypedDict):
    """A statement that is not stored, and so has no id and no documents."""

    object: Literal["statement", "credit_note"]
    title: str
    number: int | None
    status: Literal["draft", "final"]
    corrects: str | None
    period_start: str
    period_end: str
    time_zone: str
    billed_to: BilledTo
    subtotal: Money
    tax_name: str
    tax_rate: str
    tax: Money
    total: Money
    finalised_at: str | None
    lines: list[Line]


class Statement(TypedDict):
    id: str
    object: Literal["statement", "credit_note"]
    title: str
    number: int | None
    status: Literal["draft", "final"]
    corrects: str | None
    period_start: str
    period_end: str
    time_zone: str
    billed_to: BilledTo
    subtotal: Money
    tax_name: str
    tax_rate: str
    tax: Money
    total: Money
    finalised_at: str | None
    documents: Documents
    lines: list[Line]


class StatementsDocumentQuery(TypedDict, total=False):
    decimal: Annotated[Literal["point", "comma"] | None, "The decimal separator of the CSV."]


class StatementsLineChargesQuery(TypedDict, total=False):
    after: Annotated[str | None, "The id that the page begins after."]
    limit: int | None


class Price(TypedDict):
    unit_price: str
    mode: str
    price_book: str
    used_before: str
    discount: str


class Attempt(TypedDict):
    """`device_share`: the attempt's GPU seconds divided by its running time."""

    number: int
    status: str
    worker: str
    gpu_class: str
    started_at: str | None
    finished_at: str | None
    steps_done: int
    gpu_seconds: float
    device_share: float | None


class Charge(TypedDict):
    id: str
    kind: str
    charged_at: str
    used_at: str
    quantity: str
    price: Price
    amount: Money
    corrects: str | None
    reason: str | None
    job_id: str | None
    attempts: list[Attempt]


class ChargeList(TypedDict):
    """OpenAI's list: the next page is the one `after` its `last_id`. Without rows or ids both are null."""

    object: str
    data: list[Charge]
    first_id: str | None
    last_id: str | None
    has_more: bool


class WebhooksListQuery(TypedDict, total=False):
    after: Annotated[str | None, "The id that the page begins after."]
    limit: int | None


class Webhook(TypedDict):
    id: str
    object: str
    url: str
    events: list[
        Literal[
            "job.succeeded",
            "job.failed",
            "job.canceled",
            "job.expired",
            "batch.completed",
            "batch.failed",
            "batch.expired",
            "batch.cancelled",
            "budget.threshold_reached",
            "webhook.test",
        ]
    ]
    enabled: bool
    disabled_reason: str | None
    disabled_at: str | None
    delivered_at: str | None
    created_at: str


class WebhookList(TypedDict):
    """OpenAI's list: the next page is the one `after` its `last_id`. Without rows or ids both are null."""

    object: str
    data: list[Webhook]
    first_id: str | None
    last_id: str | None
    has_more: bool


class WebhookInput(TypedDict, total=False):
    url: Required[Annotated[str, "An https address to POST to."]]
    events: list[str] | None


class WebhookWithSecret(TypedDict):
    """Only the answer that creates a secret contains it: a request repeated by its Idempotency-Key does not get it."""

    id: str
    object: str
    url: str
    events: list[
        Literal[
            "job.succeeded",
            "job.failed",
            "job.canceled",
            "job.expired",
            "batch.completed",
            "batch.failed",
            "batch.expired",
            "batch.cancelled",
            "budget.threshold_reached",
            "webhook.test",
        ]
    ]
    enabled: bool
    disabled_reason: str | None
    disabled_at: str | None
    delivered_at: str | None
    created_at: str
    secret: NotRequired[str]


class WebhookChangeInput(TypedDict, total=False):
    url: str | None
    events: list[str] | None
    enabled: bool | None


class DeliveryAttempt(TypedDict):
    at: str
    status: int | None
    outcome: str
    seconds: float
    response: str


class Delivery(TypedDict):
    id: str
    object: str
    message_id: str
    event: Literal[
        "job.succeeded",
        "job.failed",
        "job.canceled",
        "job.expired",
        "batch.completed",
        "batch.failed",
        "batch.expired",
        "batch.cancelled",
        "budget.threshold_reached",
        "webhook.test",
    ]
    status: Literal["pending", "delivered", "failed"]
    created_at: str
    next_attempt_at: str | None
    data: dict[str, Any]
    attempts: list[DeliveryAttempt]


class WebhooksDeliveriesQuery(TypedDict, total=False):
    after: Annotated[str | None, "The id that the page begins after."]
    limit: int | None
    status: Literal["pending", "delivered", "failed"] | None


class DeliveryList(TypedDict):
    """OpenAI's list: the next page is the one `after` its `last_id`. Without rows or ids both are null."""

    object: str
    data: list[Delivery]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ErrorCode(TypedDict):
    """An error code: what happened, and what you can do about it."""

    code: str
    status: int
    type: str
    retryable: bool
    passes_later: bool
    text: str
    remedy: str


class ErrorCodeList(TypedDict):
    """OpenAI's list: the next page is the one `after` its `last_id`. Without rows or ids both are null."""

    object: str
    data: list[ErrorCode]
    first_id: str | None
    last_id: str | None
    has_more: bool
