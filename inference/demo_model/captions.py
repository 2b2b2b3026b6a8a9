"""Captions of scenes: the English and Chinese sentences that people would type for them.

In the templates, {a} and {b} stand for phrases such as "a red circle" and {bg} for the background's colour.
"""

import re

import numpy as np

from inference.demo_model.scenes import COLOURS, SHAPES, Scene, Thing, default_background, pick

_SHAPE_WORDS_EN = {
    "circle": ("circle", "circle", "disc", "dot"),
    "square": ("square", "square", "box"),
    "triangle": ("triangle",),
    "star": ("star", "star", "five pointed star"),
}
_COLOUR_WORDS_EN = {name: (name, name) for name in COLOURS} | {
    "purple": ("purple", "purple", "violet"),
    "cyan": ("cyan", "cyan", "turquoise"),
}
_SHAPE_WORDS_ZH = {
    "circle": ("圆形", "圆", "圆圈"),
    "square": ("正方形", "方块", "方形"),
    "triangle": ("三角形", "三角"),
    "star": ("星形", "五角星", "星星"),
}
_COLOUR_WORDS_ZH = {
    "red": "红", "orange": "橙", "yellow": "黄", "green": "绿", "cyan": "青",
    "blue": "蓝", "purple": "紫", "pink": "粉", "white": "白", "black": "黑",
}  # fmt: skip

_SINGLE_EN = (
    "{a} on a {bg} background", "{a} on a {bg} background", "{a}, {bg} background", "{a} on {bg}",
    "{a} in front of a {bg} background", "{a} against a {bg} background", "{a} with a {bg} background",
    "a {bg} background with {a}", "{bg} background, {a}", "on a {bg} background, {a}",
)  # fmt: skip
_PAIR_EN = {
    "left": (
        "{a} to the left of {b}",
        "{a} left of {b}",
        "{a} on the left and {b} on the right",
        "{a} on the left, {b} on the right",
    ),
    "right": ("{a} to the right of {b}", "{a} right of {b}", "{a} on the right and {b} on the left"),
    "above": ("{a} above {b}", "{a} over {b}", "{a} at the top and {b} at the bottom"),
    "below": ("{a} below {b}", "{a} under {b}", "{a} beneath {b}", "{a} at the bottom and {b} at the top"),
}
_ENDS_EN = (" on a {bg} background", ", {bg} background", " on {bg}", " with a {bg} background")
_SINGLE_ZH = (
    "{bg}背景上的{a}", "{bg}背景上的{a}", "{bg}背景上有{a}", "{a},{bg}背景",
    "{a},背景是{bg}", "{a}在{bg}背景上", "{bg}背景,{a}",
)  # fmt: skip
_PAIR_ZH = {
    "left": ("{a}在{b}左边", "{a}在{b}的左边", "{b}左边有{a}", "左边是{a},右边是{b}", "{a}在{b}左侧"),
    "right": ("{a}在{b}右边", "{a}在{b}的右边", "{b}右边有{a}", "右边是{a},左边是{b}", "{a}在{b}右侧"),
    "above": ("{a}在{b}上面", "{a}在{b}的上方", "{b}上面有{a}", "上面是{a},下面是{b}", "{a}在{b}上方"),
    "below": ("{a}在{b}下面", "{a}在{b}的下方", "{b}下面有{a}", "下面是{a},上面是{b}", "{a}在{b}下方"),
}
_ENDS_ZH = (",{bg}背景", ",背景是{bg}", ",{bg}的背景")
_STARTS_EN = (
    "please draw", "draw", "paint", "a picture of", "a photo of", "an image of", "photo of",
    "a drawing of", "i want", "show me", "generate", "create", "a simple", "make",
)  # fmt: skip
_FINISHES_EN = (", please", ", high quality", ", minimalist", ", flat style", ", 4k", ", vector art")
_STARTS_ZH = ("请画", "画", "一张图片,", "图片:", "生成", "画一幅")
_FINISHES_ZH = (",高清", ",简约风格", ",高质量")
# None of these is in the vocabulary: training on them teaches the model to ignore <unk>.
_STRANGE_EN = ("cat", "dog", "lovely", "zebra", "quickly", "house", "castle", "shiny", "umbrella")
_STRANGE_ZH = ("猫", "狗", "漂亮", "可爱", "房", "山")
# The chance of each addition to a caption, and the lists that it picks words from.
_NOISE_EN = (
    (0.2, "{} {text}", (_STARTS_EN,)),
    (0.1, "{text}{}", (_FINISHES_EN,)),
    (0.08, "{} {text}", (_STRANGE_EN,)),
    (0.08, "{text}, {} {}", (_STRANGE_EN, _STRANGE_EN)),
    (0.15, "{text}.", ()),
)
_NOISE_ZH = (
    (0.15, "{}{text}", (_STARTS_ZH,)),
    (0.1, "{text}{}", (_FINISHES_ZH,)),
    (0.1, "{},{text}", (_STRANGE_ZH,)),
    (0.15, "{text}。", ()),
)
_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}


def caption_sample(scene: Scene, rng: np.random.Generator, *, noise: bool = True) -> str:
    """Sample one of the many captions of the scene; `noise` allows filler and unknown words."""
    if scene.relation is not None and rng.random() >= 0.5:
        scene = Scene(scene.things[::-1], scene.background, _OPPOSITE[scene.relation])
    is_chinese = rng.random() < 0.4
    text = _chinese(scene, rng) if is_chinese else _english(scene, rng)
    if noise:
        for chance, template, options in _NOISE_ZH if is_chinese else _NOISE_EN:
            if rng.random() < chance:
                text = template.format(*(pick(rng, words) for words in options), text=text)
    return text


def caption_plain(scene: Scene) -> str:
    """Return the plainest English caption of the scene, for examples and tests."""
    template = _SINGLE_EN[0] if scene.relation is None else _PAIR_EN[scene.relation][0] + _ENDS_EN[0]
    phrases = [_with_article(f"{thing.colour} {thing.shape}") for thing in scene.things]
    return template.format(a=phrases[0], b=phrases[-1], bg=scene.background)


def words() -> list[str]:
    """Return every English word and Chinese character that captions contain, sorted."""
    texts = [*_SINGLE_EN, *_ENDS_EN, *_SINGLE_ZH, *_ENDS_ZH, *_STARTS_EN, *_FINISHES_EN]
    texts += [*_STARTS_ZH, *_FINISHES_ZH, *_COLOUR_WORDS_ZH.values(), "the an one some 一个的颗幅色"]
    for table in (_PAIR_EN, _PAIR_ZH, _SHAPE_WORDS_EN, _SHAPE_WORDS_ZH, _COLOUR_WORDS_EN):
        texts += [text for options in table.values() for text in options]
    plain = " ".join(re.sub(r"\{\w+\}", " ", text) for text in [*texts, *SHAPES, "and ."])
    return sorted(set(re.findall(r"[a-z0-9]+|[^\sa-z0-9]", plain)))


def _with_article(phrase: str) -> str:
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


def _phrase_en(thing: Thing, rng: np.random.Generator) -> str:
    return f"{pick(rng, _COLOUR_WORDS_EN[thing.colour])} {pick(rng, _SHAPE_WORDS_EN[thing.shape])}"


def _english(scene: Scene, rng: np.random.Generator) -> str:
    article = _with_article if rng.random() < 0.8 else str
    names_background = scene.background != default_background(scene.things) or rng.random() < 0.5
    parts = {"bg": pick(rng, _COLOUR_WORDS_EN[scene.background])}
    parts |= {name: article(_phrase_en(thing, rng)) for name, thing in zip("ab", scene.things, strict=False)}
    if scene.relation is None:
        template = pick(rng, _SINGLE_EN) if names_background else "{a}"
    else:
        template = pick(rng, _PAIR_EN[scene.relation])
        if names_background:
            template += pick(rng, _ENDS_EN)
    return template.format(**parts)


def _phrase_zh(thing: Thing, rng: np.random.Generator) -> str:
    colour = _COLOUR_WORDS_ZH[thing.colour] + pick(rng, ("色", "色", "色的", ""))
    count = pick(rng, ("一个", "一个", "", "一颗" if thing.shape == "star" else ""))
    return f"{count}{colour}{pick(rng, _SHAPE_WORDS_ZH[thing.shape])}"


def _chinese(scene: Scene, rng: np.random.Generator) -> str:
    names_background = scene.background != default_background(scene.things) or rng.random() < 0.5
    parts = {"bg": _COLOUR_WORDS_ZH[scene.background] + "色"}
    parts |= {name: _phrase_zh(thing, rng) for name, thing in zip("ab", scene.things, strict=False)}
    if scene.relation is None:
        template = pick(rng, _SINGLE_ZH) if names_background else "{a}"
    else:
        template = pick(rng, _PAIR_ZH[scene.relation])
        if names_background:
            template = template + pick(rng, _ENDS_ZH) if rng.random() < 0.7 else "{bg}背景," + template
    return template.format(**parts)
