"""The dashboard of costs: charges of tenants, by attribute."""

from deploy.grafana.board import choice, listing, number, page, ranking, stacked_days

_BALANCES = "tenant IN (${tenant:sqlstring}) AND currency = ${currency:sqlstring}"
_CHOSEN = f"$__timeFilter(day) AND {_BALANCES}"
# Amounts have no unit, since each of Grafana's names one currency; the titles name the chosen currency instead.
_COST = "sum(amount_micros) / 1e6"


def _top(what: str, condition: str = "true") -> str:
    return f"""SELECT {what}, {_COST} AS cost
        FROM reporting.costs WHERE {_CHOSEN} AND {condition}
        GROUP BY 1 ORDER BY 2 DESC LIMIT 20"""


def _daily(series: str) -> str:
    return f"""SELECT day::timestamp AT TIME ZONE 'UTC' AS time, {series} AS metric, {_COST} AS cost
        FROM reporting.costs WHERE {_CHOSEN}
        GROUP BY 1, 2 ORDER BY 1, 2"""


def _total(value: str, view: str = "costs", chosen: str = _CHOSEN) -> str:
    return f"SELECT {value} FROM reporting.{view} WHERE {chosen}"


def _quantity(meter: str, name: str) -> str:
    return _total(f"coalesce(sum(quantity) FILTER (WHERE meter = '{meter}'), 0) AS {name}")


TENANT = choice(
    "tenant", "Tenants whose cost is shown.", "SELECT DISTINCT tenant FROM reporting.balances ORDER BY tenant"
)
CURRENCY = choice(
    "currency",
    "Amounts of different currencies are never added.",
    "SELECT currency FROM reporting.balances GROUP BY currency ORDER BY count(*) DESC, currency",
    several=False,
)

BOARD = page(
    "easel-cost",
    "Easel: cost",
    "Charges of tenants by project, model, meter and more. They sum to the ledger's revenue.",
    number(
        "Charged, ${currency}",
        "All charges of the selected time, tenants and currency.",
        _total(f"coalesce({_COST}, 0) AS charged"),
        decimals=2,
    ),
    number(
        "Images, in units of 512x512",
        "Charged pixels in units of 512x512: an image of 1024x1024 is 4 units.",
        _quantity("image_unit", "units"),
        decimals=1,
    ),
    number("Requests", "Successful requests.", _quantity("request", "requests")),
    number("GPU time charged", "Charged GPU seconds.", _quantity("gpu_second", "gpu_seconds"), unit="s"),
    number(
        "Cost per request, ${currency}",
        "Charges without storage, divided by successful requests.",
        _total(
            "sum(amount_micros) FILTER (WHERE meter <> 'storage_gb_second') / 1e6"
            " / nullif(sum(quantity) FILTER (WHERE meter = 'request'), 0) AS cost"
        ),
        decimals=5,
    ),
    number(
        "Credit left, ${currency}",
        "Current credit of the selected tenants.",
        _total("coalesce(sum(credit_micros), 0) / 1e6 AS credit", "balances", _BALANCES),
        decimals=2,
    ),
    stacked_days("By day and tenant, ${currency}", "Charges per day and tenant.", _daily("tenant")),
    stacked_days(
        "By day and meter, ${currency}",
        "Charges per day and meter: GPU seconds, image units, requests, storage.",
        _daily("meter"),
    ),
    ranking("By tenant, ${currency}", "The tenants with the highest charges.", _top("tenant")),
    ranking("By project, ${currency}", "Charges by tenant and project.", _top("tenant || ' / ' || project AS project")),
    ranking(
        "By department, ${currency}",
        "Charges by the projects' label department at the time of use.",
        _top("CASE department WHEN '' THEN 'no department' ELSE department END AS department"),
    ),
    ranking("By model, ${currency}", "Charges of images by model.", _top("model", "model <> ''")),
    ranking(
        "By resolution, ${currency}", "Charges of images by width x height.", _top("resolution", "resolution <> ''")
    ),
    ranking(
        "By adapter, ${currency}",
        "Charges of images by the LoRA adapters that they used.",
        _top("CASE adapter WHEN '' THEN 'none' ELSE adapter END AS adapter", "model <> ''"),
    ),
    listing(
        "Projects, ${currency}",
        "Use and charges of each project.",
        f"""SELECT tenant, project, department, {_COST} AS cost,
            sum(quantity) FILTER (WHERE meter = 'request') AS requests,
            sum(quantity) FILTER (WHERE meter = 'image_unit') AS "image units",
            sum(quantity) FILTER (WHERE meter = 'gpu_second') AS "GPU time",
            min(day) AS "first day", max(day) AS "last day"
            FROM reporting.costs WHERE {_CHOSEN}
            GROUP BY tenant, project, department ORDER BY cost DESC""",
        units={"GPU time": "s"},
    ),
    listing(
        "Jobs by model and resolution, ${currency}",
        "Ended jobs by final state, their p95 latency, and the cost per image.",
        f"""WITH timed AS (
            SELECT model, resolution, state, seconds, sum(jobs) AS jobs, sum(images) AS images
            FROM reporting.job_days WHERE {_CHOSEN}
            GROUP BY model, resolution, state, seconds
            ), ranked AS (
            SELECT *, sum(jobs) OVER (PARTITION BY model, resolution ORDER BY seconds) AS upto,
            sum(jobs) OVER (PARTITION BY model, resolution) AS total
            FROM timed
            ), job AS (
            SELECT model, resolution, sum(jobs) AS jobs,
            sum(jobs) FILTER (WHERE state = 'succeeded') AS succeeded,
            sum(jobs) FILTER (WHERE state = 'failed') AS failed,
            min(seconds) FILTER (WHERE upto >= 0.95 * total) AS p95,
            sum(images) FILTER (WHERE state = 'succeeded') AS images
            FROM ranked GROUP BY model, resolution
            ), charged AS (
            SELECT model, resolution, {_COST} AS cost FROM reporting.costs WHERE {_CHOSEN}
            GROUP BY model, resolution
            )
            SELECT model, resolution, jobs, succeeded, failed, p95 AS "p95 latency",
            cost / nullif(images, 0) AS "cost per image"
            FROM job LEFT JOIN charged USING (model, resolution) ORDER BY jobs DESC""",
        units={"p95 latency": "s"},
        span=12,
    ),
    listing(
        "Balances, ${currency}",
        "Current balances: credit, holds of unfinished jobs, and debts.",
        f"""SELECT tenant, credit_micros / 1e6 AS credit, held_micros / 1e6 AS held,
            owed_micros / 1e6 AS owed, charged_micros / 1e6 AS "charged so far"
            FROM reporting.balances WHERE {_BALANCES} ORDER BY charged_micros DESC""",
        span=12,
    ),
    variables=[TENANT, CURRENCY],
)
