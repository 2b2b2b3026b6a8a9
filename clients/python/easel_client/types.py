"""Bodies, queries and answers of the API. `scripts/client` writes this module."""

from datetime import date
from typing import Annotated, Any, Literal, NotRequired, Required, TypedDict

from easel_client.transport import FileContent


class AdaptersListQuery(TypedDict, total=False):
    after: Annotated[str | None, "The id that the page begins after."]
    limit: int | None


class AdaptersListAnswerDataItemVersionsItem(TypedDict):
    version: int
    sha256: str
    size_bytes: int
    rank: int
    modules: int
    created_at: str


class AdaptersListAnswerDataItem(TypedDict):
    id: str
    object: str
    name: str
    model: str
    status: Literal["ready", "retired"]
    created_at: str
    versions: list[AdaptersListAnswerDataItemVersionsItem]


class AdaptersListAnswer(TypedDict):
    """OpenAI's list: the next page is the one `after` its `last_id`. Without rows or ids both are null."""

    object: str
    data: list[AdaptersListAnswerDataItem]
    first_id: str | None
    last_id: str | None
    has_more: bool


class AdapterUploadInput(TypedDict, total=False):
    name: Required[Annotated[str, "Lower-case letters, digits and inner hyphens."]]
    file: Required[Annotated[FileContent, "LoRA weights as safetensors."]]
    model: Annotated[str | None, "The base model that it was trained on."]


class BalanceGetAnswerAvailable(TypedDict):
    """An amount as the API answers it."""

    amount: str
    amount_micros: int
    currency: str


class BalanceGetAnswerGrantsItem(TypedDict):
    id: str
    category: Literal["paid", "promotional", "refund"]
    priority: int
    amount: BalanceGetAnswerAvailable
    remaining: BalanceGetAnswerAvailable
    created_at: str
    expires_at: str | None


class BalanceGetAnswer(TypedDict):
    """Grants are listed in the order in which they are spent."""

    object: str
    available: BalanceGetAnswerAvailable
    credit: BalanceGetAnswerAvailable
    held: BalanceGetAnswerAvailable
    owed: BalanceGetAnswerAvailable
    credit_limit: BalanceGetAnswerAvailable
    grants: list[BalanceGetAnswerGrantsItem]


class BudgetsListQuery(TypedDict, total=False):
    after: Annotated[str | None, "The id that the page begins after."]
    limit: int | None


class BudgetsListAnswerDataItem(TypedDict):
    id: str
    object: str
    project: str | None
    api_key: str | None
    amount: BalanceGetAnswerAvailable
    hard_stop: bool
    spent: BalanceGetAnswerAvailable
    held: BalanceGetAnswerAvailable
    remaining: BalanceGetAnswerAvailable
    thresholds_reached: list[int]
    resets_at: str


class BudgetsListAnswer(TypedDict):
    """OpenAI's list: the next page is the one `after` its `last_id`. Without rows or ids both are null."""

    object: str
    data: list[BudgetsListAnswerDataItem]
    first_id: str | None
    last_id: str | None
    has_more: bool


class BudgetInput(TypedDict, total=False):
    """The budget of a project or a key if one is named, else of the account."""

    project: str | None
    api_key: Annotated[str | None, "The part of the key between `easel_sk_` and the next underscore."]
    amount_micros: Required[Annotated[int, "1000000 are 1 of your currency."]]
    currency: Annotated[str | None, "Checked against your account's if given."]
    hard_stop: Annotated[bool | None, "True to refuse requests that would exceed the budget."]


class CostsGetQuery(TypedDict, total=False):
    end: Annotated[str | date | None, "Last day (UTC), by default today."]
    group_by: Annotated[
        str | None,
        "Comma-separated, at most four: day, project, model, version, adapter, quality, tier, resolution, key, meter, label:NAME.",
    ]
    sort: Annotated[Literal["group", "amount"] | None, "amount: the highest first."]
    start: Annotated[str | date | None, "First day (UTC), by default the first of the last one's month."]


class CostsGetAnswerDataItem(TypedDict):
    image_units: float
    gpu_seconds: float
    storage_gb_seconds: float
    cost: BalanceGetAnswerAvailable
    group: dict[str, str]
    charges: int
    requests: float
    list_cost: BalanceGetAnswerAvailable


class CostsGetAnswer(TypedDict):
    object: str
    data: list[CostsGetAnswerDataItem]
    start: str
    end: str
    total: BalanceGetAnswerAvailable


class CostsOutlookAnswerExpected(TypedDict):
    """An amount as the API answers it."""

    amount: str
    amount_micros: int
    currency: str


class CostsOutlookAnswerAnomaliesItem(TypedDict):
    day: str
    cost: BalanceGetAnswerAvailable
    usual: BalanceGetAnswerAvailable
    score: float


class CostsOutlookAnswer(TypedDict):
    object: str
    month: str
    so_far: BalanceGetAnswerAvailable
    expected: CostsOutlookAnswerExpected | None
    low: CostsOutlookAnswerExpected | None
    high: CostsOutlookAnswerExpected | None
    confidence: float
    anomalies: list[CostsOutlookAnswerAnomaliesItem]


class ErrorsListAnswerDataItem(TypedDict):
    """An error code: what happened, and what you can do about it."""

    code: str
    status: int
    type: str
    retryable: bool
    text: str
    remedy: str


class ErrorsListAnswer(TypedDict):
    """OpenAI's list: the next page is the one `after` its `last_id`. Without rows or ids both are null."""

    object: str
    data: list[ErrorsListAnswerDataItem]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ExperimentsListQuery(TypedDict, total=False):
    after: Annotated[str | None, "The id that the page begins after."]
    limit: int | None


class ExperimentsListAnswerDataItemArmsItemAdaptersItem(TypedDict):
    name: str
    scale: float


class ExperimentsListAnswerDataItemArmsItem(TypedDict):
    name: str
    weight: int
    version: int | None
    adapters: list[ExperimentsListAnswerDataItemArmsItemAdaptersItem]
    steps: int | None


class ExperimentsListAnswerDataItem(TypedDict):
    id: str
    object: str
    name: str
    model: str
    status: Literal["running", "stopped"]
    started_at: str
    stopped_at: str | None
    arms: list[ExperimentsListAnswerDataItemArmsItem]


class ExperimentsListAnswer(TypedDict):
    """OpenAI's list: the next page is the one `after` its `last_id`. Without rows or ids both are null."""

    object: str
    data: list[ExperimentsListAnswerDataItem]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ExperimentInputArmsItemAdaptersItem(TypedDict, total=False):
    name: Required[str]
    scale: float | None


class ExperimentInputArmsItem(TypedDict, total=False):
    name: Required[str]
    weight: Required[Annotated[int, "Percent of the callers; the weights of all arms sum to 100."]]
    version: Annotated[int | None, "A version of the model; by default as the model routes."]
    adapters: list[ExperimentInputArmsItemAdaptersItem] | None
    steps: int | None


class ExperimentInput(TypedDict, total=False):
    name: Required[str]
    model: str | None
    arms: Required[list[ExperimentInputArmsItem]]


class ExperimentsGetAnswerReportItemScore(TypedDict):
    """A mean with its interval, and its difference from the first arm with the `p_value` of that."""

    callers: int
    mean: float | None
    low: float | None
    high: float | None
    difference: float | None
    p_value: float | None


class ExperimentsGetAnswerReportItem(TypedDict):
    arm: str
    jobs: int
    succeeded: int
    failed: int
    feedback: int
    cost: BalanceGetAnswerAvailable
    seconds_p50: float | None
    seconds_p95: float | None
    score: ExperimentsGetAnswerReportItemScore
    error_rate: ExperimentsGetAnswerReportItemScore
    seconds: ExperimentsGetAnswerReportItemScore
    job_cost_micros: ExperimentsGetAnswerReportItemScore


class ExperimentsGetAnswer(TypedDict):
    id: str
    object: str
    name: str
    model: str
    status: Literal["running", "stopped"]
    started_at: str
    stopped_at: str | None
    arms: list[ExperimentsListAnswerDataItemArmsItem]
    report: list[ExperimentsGetAnswerReportItem]


class ExportsCostsQuery(TypedDict, total=False):
    decimal: Annotated[Literal["point", "comma"] | None, "The decimal separator of the file."]
    end: Annotated[str | date | None, "Last day (UTC), by default today."]
    start: Annotated[str | date | None, "First day (UTC), by default the first of the last one's month."]


class ExportsEventsQuery(TypedDict, total=False):
    end: Annotated[str | date | None, "Last day (UTC), by default today."]
    start: Annotated[str | date | None, "First day (UTC), by default the first of the last one's month."]


class ExportsFocusQuery(TypedDict, total=False):
    end: Annotated[str | date | None, "Last day (UTC), by default today."]
    format: Literal["csv", "parquet"] | None
    invoice: Annotated[int | None, "The number of a statement or credit note, to export all of it instead of days."]
    start: Annotated[str | date | None, "First day (UTC), by default the first of the last one's month."]


class ImagesInputAdaptersItem(TypedDict, total=False):
    name: Required[str]
    scale: float | None


class ImagesInput(TypedDict, total=False):
    """`POST /v1/images/generations` of OpenAI, as of the gpt-image models."""

    prompt: Required[Annotated[str, "The text that the image is generated from."]]
    model: str | None
    n: int | None
    size: Annotated[str | None, '"auto" or WIDTHxHEIGHT, both multiples of 16.']
    quality: Annotated[
        Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"] | None,
        "`low` takes half of the steps and the tier `fast`, `high` and above the tier `hd`; for the others the size decides.",
    ]
    steps: Annotated[int | None, "Denoising steps."]
    seed: Annotated[
        int | None, "The same seed, prompt, size, steps, model version and adapters give the same image. -1 is random."
    ]
    cache: Annotated[
        bool | None, "True if a request with a seed may be answered with images that were generated for the same one."
    ]
    adapters: list[ImagesInputAdaptersItem] | None
    priority: Annotated[int | None, "Order among your own waiting jobs: the highest goes first."]
    expires_in_seconds: Annotated[int | None, "Time to generate in. A job that expires is not charged."]
    output_format: Annotated[Literal["png", "jpeg", "jpg", "webp"] | None, "jpg is jpeg."]
    output_compression: int | None
    project: str | None
    user: Annotated[str | None, "Your end user."]
    safety_identifier: Annotated[str | None, "OpenAI's later name for `user`."]
    metadata: dict[str, str] | None
    num_inference_steps: Annotated[int | None, "Another name of `steps`."]
    step: Annotated[int | None, "Another name of `steps`."]
    width: Annotated[int | None, "With `height`, another form of `size`."]
    height: Annotated[int | None, "With `width`, another form of `size`."]
    background: Annotated[str | None, "`auto` or `opaque`."]
    moderation: Annotated[str | None, "`auto`."]
    style: Annotated[str | None, "Not supported: describe the style in the prompt."]
    negative_prompt: Annotated[str | None, "Not supported, unless it is blank."]
    guidance_scale: Annotated[float | None, "0: the model generates without guidance."]
    true_cfg_scale: Annotated[float | None, "0 or 1: the model generates without guidance."]
    cfg_scale: Annotated[float | None, "1: the model generates without guidance."]
    response_format: Annotated[Literal["b64_json", "url", "both"] | None, "both: each image has `b64_json` and `url`."]
    stream: bool | None
    cancel_on_disconnect: Annotated[
        bool | None,
        "What happens to the job when you disconnect before it has ended. True: it is canceled. False: it goes on. Left out: a queued job is canceled; one that is dispatched or running goes on for a minute, in which a retry can join it.",
    ]
    partial_images: Annotated[int | None, "With `stream`: previews of each image while it is generated."]


class ImagesGenerationsAnswerDataItem(TypedDict):
    b64_json: NotRequired[str]
    url: NotRequired[str]


class ImagesGenerationsAnswerUsageInputTokensDetails(TypedDict):
    text_tokens: int
    image_tokens: int


class ImagesGenerationsAnswerUsageCostDetailsLinesItem(TypedDict):
    """The charges of one meter. `kind` is `usage`, `waiver` (what is not charged) or `correction`."""

    meter: str
    kind: str
    quantity: str
    amount: str
    amount_micros: int


class ImagesGenerationsAnswerUsageCostDetails(TypedDict):
    amount: str
    amount_micros: int
    currency: str
    lines: list[ImagesGenerationsAnswerUsageCostDetailsLinesItem]


class ImagesGenerationsAnswerUsage(TypedDict):
    """OpenAI's token counts (an image token is 16x16 pixels), and what was measured and charged. `cost` is a number in
    the account's currency, since gateways and SDKs read one; `cost_details` names the currency.
    """

    input_tokens: int
    input_tokens_details: ImagesGenerationsAnswerUsageInputTokensDetails
    output_tokens: int
    total_tokens: int
    cached: bool
    image_units: float
    gpu_seconds: float
    cost: float
    cost_details: ImagesGenerationsAnswerUsageCostDetails


class ImagesGenerationsAnswerWarningsItem(TypedDict):
    """A field of a request that was ignored, with the code that it would have been refused with."""

    param: str
    code: str
    message: str


class ImagesGenerationsAnswer(TypedDict):
    background: str
    output_format: str
    quality: str
    size: str
    created: int
    data: list[ImagesGenerationsAnswerDataItem]
    tier: Literal["fast", "hd"]
    usage: ImagesGenerationsAnswerUsage
    warnings: list[ImagesGenerationsAnswerWarningsItem]
    job_id: str
    seed: int


class QuoteInputAdaptersItem(TypedDict, total=False):
    name: Required[str]
    scale: float | None


class QuoteInput(TypedDict, total=False):
    """The body of a generation, and whether it would be a line of a batch."""

    prompt: Required[Annotated[str, "The text that the image is generated from."]]
    model: str | None
    n: int | None
    size: Annotated[str | None, '"auto" or WIDTHxHEIGHT, both multiples of 16.']
    quality: Annotated[
        Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"] | None,
        "`low` takes half of the steps and the tier `fast`, `high` and above the tier `hd`; for the others the size decides.",
    ]
    steps: Annotated[int | None, "Denoising steps."]
    seed: Annotated[
        int | None, "The same seed, prompt, size, steps, model version and adapters give the same image. -1 is random."
    ]
    cache: Annotated[
        bool | None, "True if a request with a seed may be answered with images that were generated for the same one."
    ]
    adapters: list[QuoteInputAdaptersItem] | None
    priority: Annotated[int | None, "Order among your own waiting jobs: the highest goes first."]
    expires_in_seconds: Annotated[int | None, "Time to generate in. A job that expires is not charged."]
    output_format: Annotated[Literal["png", "jpeg", "jpg", "webp"] | None, "jpg is jpeg."]
    output_compression: int | None
    project: str | None
    user: Annotated[str | None, "Your end user."]
    safety_identifier: Annotated[str | None, "OpenAI's later name for `user`."]
    metadata: dict[str, str] | None
    num_inference_steps: Annotated[int | None, "Another name of `steps`."]
    step: Annotated[int | None, "Another name of `steps`."]
    width: Annotated[int | None, "With `height`, another form of `size`."]
    height: Annotated[int | None, "With `width`, another form of `size`."]
    background: Annotated[str | None, "`auto` or `opaque`."]
    moderation: Annotated[str | None, "`auto`."]
    style: Annotated[str | None, "Not supported: describe the style in the prompt."]
    negative_prompt: Annotated[str | None, "Not supported, unless it is blank."]
    guidance_scale: Annotated[float | None, "0: the model generates without guidance."]
    true_cfg_scale: Annotated[float | None, "0 or 1: the model generates without guidance."]
    cfg_scale: Annotated[float | None, "1: the model generates without guidance."]
    response_format: Annotated[Literal["b64_json", "url", "both"] | None, "both: each image has `b64_json` and `url`."]
    stream: bool | None
    cancel_on_disconnect: Annotated[
        bool | None,
        "What happens to the job when you disconnect before it has ended. True: it is canceled. False: it goes on. Left out: a queued job is canceled; one that is dispatched or running goes on for a minute, in which a retry can join it.",
    ]
    partial_images: Annotated[int | None, "With `stream`: previews of each image while it is generated."]
    batch: Annotated[bool | None, "True for the price of a line of a batch."]


class ImagesQuotesAnswerLinesItemPartsItem(TypedDict):
    quantity: str
    unit_price: str


class ImagesQuotesAnswerLinesItem(TypedDict):
    meter: str
    quantity: str
    quantity_most: str
    price_book: str
    mode: str
    used_before: str
    parts: list[ImagesQuotesAnswerLinesItemPartsItem]
    contract: str | None
    discount: str
    amount: BalanceGetAnswerAvailable
    list_amount: BalanceGetAnswerAvailable
    most: BalanceGetAnswerAvailable


class ImagesQuotesAnswerRefusal(TypedDict):
    code: str
    message: str


class ImagesQuotesAnswer(TypedDict):
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
    lines: list[ImagesQuotesAnswerLinesItem]
    expected: BalanceGetAnswerAvailable
    most: BalanceGetAnswerAvailable
    available: BalanceGetAnswerAvailable
    warnings: list[ImagesGenerationsAnswerWarningsItem]
    admitted: bool
    refusal: ImagesQuotesAnswerRefusal | None


class JobsListQuery(TypedDict, total=False):
    after: Annotated[str | None, "The id that the page begins after."]
    limit: int | None
    status: Literal["queued", "dispatched", "running", "succeeded", "failed", "canceled", "expired"] | None


class JobsListAnswerDataItemAdaptersItem(TypedDict):
    name: str
    version: int
    scale: float


class JobsListAnswerDataItemExperiment(TypedDict):
    name: str
    arm: str


class JobsListAnswerDataItemProgress(TypedDict):
    steps_done: int
    steps_total: int


class JobsListAnswerDataItemImagesItem(TypedDict):
    url: str
    seed: int
    size_bytes: int


class JobsListAnswerDataItemUsage(TypedDict):
    """OpenAI's token counts (an image token is 16x16 pixels), and what was measured and charged. `cost` is a number in
    the account's currency, since gateways and SDKs read one; `cost_details` names the currency.
    """

    input_tokens: int
    input_tokens_details: ImagesGenerationsAnswerUsageInputTokensDetails
    output_tokens: int
    total_tokens: int
    cached: bool
    image_units: float
    gpu_seconds: float
    cost: float
    cost_details: ImagesGenerationsAnswerUsageCostDetails


class JobsListAnswerDataItemUrls(TypedDict):
    get: str
    events: str
    cancel: str
    feedback: str


class JobsListAnswerDataItem(TypedDict):
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
    adapters: list[JobsListAnswerDataItemAdaptersItem]
    experiment: JobsListAnswerDataItemExperiment | None
    project: str
    metadata: dict[str, str]
    attempts: int
    progress: JobsListAnswerDataItemProgress
    images: list[JobsListAnswerDataItemImagesItem]
    warnings: list[ImagesGenerationsAnswerWarningsItem]
    usage: JobsListAnswerDataItemUsage | None
    error: ImagesQuotesAnswerRefusal | None
    urls: JobsListAnswerDataItemUrls


class JobsListAnswer(TypedDict):
    """OpenAI's list: the next page is the one `after` its `last_id`. Without rows or ids both are null."""

    object: str
    data: list[JobsListAnswerDataItem]
    first_id: str | None
    last_id: str | None
    has_more: bool


class JobInputAdaptersItem(TypedDict, total=False):
    name: Required[str]
    scale: float | None


class JobInput(TypedDict, total=False):
    """The fields of a generation: OpenAI's, ours, and those of other image APIs."""

    prompt: Required[Annotated[str, "The text that the image is generated from."]]
    model: str | None
    n: int | None
    size: Annotated[str | None, '"auto" or WIDTHxHEIGHT, both multiples of 16.']
    quality: Annotated[
        Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"] | None,
        "`low` takes half of the steps and the tier `fast`, `high` and above the tier `hd`; for the others the size decides.",
    ]
    steps: Annotated[int | None, "Denoising steps."]
    seed: Annotated[
        int | None, "The same seed, prompt, size, steps, model version and adapters give the same image. -1 is random."
    ]
    cache: Annotated[
        bool | None, "True if a request with a seed may be answered with images that were generated for the same one."
    ]
    adapters: list[JobInputAdaptersItem] | None
    priority: Annotated[int | None, "Order among your own waiting jobs: the highest goes first."]
    expires_in_seconds: Annotated[int | None, "Time to generate in. A job that expires is not charged."]
    output_format: Annotated[Literal["png", "jpeg", "jpg", "webp"] | None, "jpg is jpeg."]
    output_compression: int | None
    project: str | None
    user: Annotated[str | None, "Your end user."]
    safety_identifier: Annotated[str | None, "OpenAI's later name for `user`."]
    metadata: dict[str, str] | None
    num_inference_steps: Annotated[int | None, "Another name of `steps`."]
    step: Annotated[int | None, "Another name of `steps`."]
    width: Annotated[int | None, "With `height`, another form of `size`."]
    height: Annotated[int | None, "With `width`, another form of `size`."]
    background: Annotated[str | None, "`auto` or `opaque`."]
    moderation: Annotated[str | None, "`auto`."]
    style: Annotated[str | None, "Not supported: describe the style in the prompt."]
    negative_prompt: Annotated[str | None, "Not supported, unless it is blank."]
    guidance_scale: Annotated[float | None, "0: the model generates without guidance."]
    true_cfg_scale: Annotated[float | None, "0 or 1: the model generates without guidance."]
    cfg_scale: Annotated[float | None, "1: the model generates without guidance."]


class FeedbackInput(TypedDict, total=False):
    score: Required[Annotated[float, "From 0 (bad) to 1 (good)."]]
    comment: str | None


class JobsFeedbackAnswer(TypedDict):
    object: str
    job_id: str
    score: float
    comment: str
    created_at: str


class ModelsListAnswerDataItemQualitiesItem(TypedDict):
    """A quality, its tier and its steps. The size decides for a quality without a tier."""

    quality: Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"]
    tier: str | None
    steps: int


class ModelsListAnswerDataItem(TypedDict):
    """OpenAI's `Model`, with its sizes, steps and qualities."""

    id: str
    object: str
    created: int
    owned_by: str
    version: int
    default: bool
    size_default: str
    side_min: int
    side_max: int
    steps_default: int
    steps_max: int
    qualities: list[ModelsListAnswerDataItemQualitiesItem]
    fast_image_units_max: float


class ModelsListAnswer(TypedDict):
    """OpenAI's list: the next page is the one `after` its `last_id`. Without rows or ids both are null."""

    object: str
    data: list[ModelsListAnswerDataItem]
    first_id: str | None
    last_id: str | None
    has_more: bool


class QuotaGetAnswerRetention(TypedDict):
    output_days: int
    job_days: int


class QuotaGetAnswer(TypedDict):
    object: str
    data: list[Any]
    first_id: str | None
    last_id: str | None
    has_more: bool
    retention: QuotaGetAnswerRetention


class RolloutsListQuery(TypedDict, total=False):
    after: Annotated[str | None, "The id that the page begins after."]
    limit: int | None
    model: str | None


class RolloutsListAnswerDataItem(TypedDict):
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


class RolloutsListAnswer(TypedDict):
    """OpenAI's list: the next page is the one `after` its `last_id`. Without rows or ids both are null."""

    object: str
    data: list[RolloutsListAnswerDataItem]
    first_id: str | None
    last_id: str | None
    has_more: bool


class StatementsListQuery(TypedDict, total=False):
    after: Annotated[str | None, "The id that the page begins after."]
    limit: int | None


class StatementsListAnswerDataItemBilledTo(TypedDict):
    name: str
    address: str
    tax_id: str


class StatementsListAnswerDataItemDocuments(TypedDict):
    html: str
    pdf: str
    csv: str


class StatementsListAnswerDataItem(TypedDict):
    id: str
    object: Literal["statement", "credit_note"]
    title: str
    number: int | None
    status: Literal["draft", "final"]
    corrects: str | None
    period_start: str
    period_end: str
    time_zone: str
    billed_to: StatementsListAnswerDataItemBilledTo
    subtotal: BalanceGetAnswerAvailable
    tax_name: str
    tax_rate: str
    tax: BalanceGetAnswerAvailable
    total: BalanceGetAnswerAvailable
    finalised_at: str | None
    documents: StatementsListAnswerDataItemDocuments


class StatementsListAnswer(TypedDict):
    """OpenAI's list: the next page is the one `after` its `last_id`. Without rows or ids both are null."""

    object: str
    data: list[StatementsListAnswerDataItem]
    first_id: str | None
    last_id: str | None
    has_more: bool


class StatementsGetAnswerLinesItem(TypedDict):
    position: int
    project: str | None
    labels: dict[str, str]
    meter: str | None
    model: str | None
    kind: str
    description: str
    quantity: str | None
    charges: int
    amount: BalanceGetAnswerAvailable


class StatementsGetAnswer(TypedDict):
    id: str
    object: Literal["statement", "credit_note"]
    title: str
    number: int | None
    status: Literal["draft", "final"]
    corrects: str | None
    period_start: str
    period_end: str
    time_zone: str
    billed_to: StatementsListAnswerDataItemBilledTo
    subtotal: BalanceGetAnswerAvailable
    tax_name: str
    tax_rate: str
    tax: BalanceGetAnswerAvailable
    total: BalanceGetAnswerAvailable
    finalised_at: str | None
    documents: StatementsListAnswerDataItemDocuments
    lines: list[StatementsGetAnswerLinesItem]


class StatementsDocumentQuery(TypedDict, total=False):
    decimal: Annotated[Literal["point", "comma"] | None, "The decimal separator of the CSV."]


class StatementsLineChargesQuery(TypedDict, total=False):
    after: Annotated[str | None, "The id that the page begins after."]
    limit: int | None


class StatementsLineChargesAnswerDataItemPrice(TypedDict):
    unit_price: str
    mode: str
    price_book: str
    used_before: str
    discount: str


class StatementsLineChargesAnswerDataItemAttemptsItem(TypedDict):
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


class StatementsLineChargesAnswerDataItem(TypedDict):
    id: str
    kind: str
    charged_at: str
    used_at: str
    quantity: str
    price: StatementsLineChargesAnswerDataItemPrice
    amount: BalanceGetAnswerAvailable
    corrects: str | None
    reason: str | None
    job_id: str | None
    attempts: list[StatementsLineChargesAnswerDataItemAttemptsItem]


class StatementsLineChargesAnswer(TypedDict):
    """OpenAI's list: the next page is the one `after` its `last_id`. Without rows or ids both are null."""

    object: str
    data: list[StatementsLineChargesAnswerDataItem]
    first_id: str | None
    last_id: str | None
    has_more: bool


class UsageGetQuery(TypedDict, total=False):
    end: Annotated[str | date | None, "Last day (UTC), by default today."]
    group_by: Annotated[str | None, "Comma-separated: project, model, adapter, tier, day."]
    start: Annotated[str | date | None, "First day (UTC), by default the first of the last one's month."]


class UsageGetAnswerDataItem(TypedDict):
    """The values that the rows were grouped by, and the sums of their group."""

    image_units: float
    gpu_seconds: float
    storage_gb_seconds: float
    cost: BalanceGetAnswerAvailable
    project: NotRequired[str]
    model: NotRequired[str]
    adapter: NotRequired[str]
    tier: NotRequired[str]
    day: NotRequired[str]
    requests: int


class UsageGetAnswer(TypedDict):
    object: str
    data: list[UsageGetAnswerDataItem]
    start: str
    end: str
    total: BalanceGetAnswerAvailable


class WebhooksListQuery(TypedDict, total=False):
    after: Annotated[str | None, "The id that the page begins after."]
    limit: int | None


class WebhooksListAnswerDataItem(TypedDict):
    id: str
    object: str
    url: str
    events: list[
        Literal[
            "job.succeeded", "job.failed", "job.canceled", "job.expired", "budget.threshold_reached", "webhook.test"
        ]
    ]
    enabled: bool
    disabled_reason: str | None
    disabled_at: str | None
    delivered_at: str | None
    created_at: str


class WebhooksListAnswer(TypedDict):
    """OpenAI's list: the next page is the one `after` its `last_id`. Without rows or ids both are null."""

    object: str
    data: list[WebhooksListAnswerDataItem]
    first_id: str | None
    last_id: str | None
    has_more: bool


class WebhookInput(TypedDict, total=False):
    url: Required[Annotated[str, "An https address to POST to."]]
    events: list[str] | None


class WebhooksCreateAnswer(TypedDict):
    """Only the answer that creates a secret contains it: a request repeated by its Idempotency-Key does not get it."""

    id: str
    object: str
    url: str
    events: list[
        Literal[
            "job.succeeded", "job.failed", "job.canceled", "job.expired", "budget.threshold_reached", "webhook.test"
        ]
    ]
    enabled: bool
    disabled_reason: str | None
    disabled_at: str | None
    delivered_at: str | None
    created_at: str
    secret: NotRequired[str]


class PatchedWebhookChangeInput(TypedDict, total=False):
    url: str | None
    events: list[str] | None
    enabled: bool | None


class WebhooksDeliveriesQuery(TypedDict, total=False):
    after: Annotated[str | None, "The id that the page begins after."]
    limit: int | None
    status: Literal["pending", "delivered", "failed"] | None


class WebhooksDeliveriesAnswerDataItemAttemptsItem(TypedDict):
    at: str
    status: int | None
    outcome: str
    seconds: float
    response: str


class WebhooksDeliveriesAnswerDataItem(TypedDict):
    id: str
    object: str
    message_id: str
    event: Literal[
        "job.succeeded", "job.failed", "job.canceled", "job.expired", "budget.threshold_reached", "webhook.test"
    ]
    status: Literal["pending", "delivered", "failed"]
    created_at: str
    next_attempt_at: str | None
    data: dict[str, Any]
    attempts: list[WebhooksDeliveriesAnswerDataItemAttemptsItem]


class WebhooksDeliveriesAnswer(TypedDict):
    """OpenAI's list: the next page is the one `after` its `last_id`. Without rows or ids both are null."""

    object: str
    data: list[WebhooksDeliveriesAnswerDataItem]
    first_id: str | None
    last_id: str | None
    has_more: bool
