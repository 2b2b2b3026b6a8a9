"""docs/clients/README.md: what each client needs, as the tests beside this one find it."""

from collections.abc import Callable
from importlib.metadata import version

from tests.clients.programs import PAGES, node_version, venv_version
from tests.clients.test_recipes import RECIPES
from tests.clients.tools import AS_IT_IS, TOOLS, Installation
from tests.written_tables import check_table

# The programs: their pages, versions and what they need. `test_recipes.py` runs each page, which sets nothing else.
PROGRAMS: dict[str, tuple[str, Callable[[], str], str]] = {
    "openai-python": ("OpenAI, Python", lambda: version("openai"), AS_IT_IS),
    # `AzureOpenAI` of the Node package runs in `test_openai_node.py`.
    "azure-openai": ("Azure OpenAI, Python and Node", lambda: version("openai"), AS_IT_IS),
    "openai-node": ("OpenAI, Node", lambda: node_version("openai"), AS_IT_IS),
    # `test_browser.py` runs this page.
    "browser": ("OpenAI, in a browser", lambda: node_version("openai"), "its page's origin allowed"),
    "vercel-ai": ("Vercel AI SDK", lambda: f"ai {node_version('ai')}", AS_IT_IS),
    "litellm": ("LiteLLM, SDK", lambda: venv_version("litellm"), AS_IT_IS),
    "litellm-proxy": ("LiteLLM, proxy", lambda: venv_version("litellm"), AS_IT_IS),
    "langchain": (
        "LangChain, `DallEAPIWrapper`",
        lambda: f"langchain-community {venv_version('langchain-community')}",
        "a model name that answers with URLs: `dall-e-2`",
    ),
}


def test_every_program_has_a_page_that_is_run():
    assert {*RECIPES, "litellm-proxy", "browser"} == PROGRAMS.keys()
    assert not [name for name in PROGRAMS if not (PAGES / f"{name}.md").exists()]


def test_the_table_of_clients_is_what_the_tests_found(installation: Installation):
    programs = [[f"[{name}]({page}.md)", pinned(), needs] for page, (name, pinned, needs) in PROGRAMS.items()]
    tools = []
    for name, tool in TOOLS.items():
        setting, answer = installation.generated_by(name)
        assert answer.status_code == 200, answer.text
        needs = [*([] if setting == AS_IT_IS else [setting]), *([tool["address"]] if "address" in tool else [])]
        tools.append([f"[{tool['client']}]({tool['page']})", tool["version"], "; ".join(needs) or AS_IT_IS])
    check_table("docs/clients/README.md", "clients", ("client", "version", "needs"), [*programs, *tools])
