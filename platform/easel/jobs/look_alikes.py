"""Letters of other scripts and styles that look like Latin ones, by Latin letter, folded.

They are the single characters of Unicode's confusables (UTS #39, 15.1, Unicode License v3) that look like
one Latin letter, and by their names small capitals, letters with strokes and hooks, turned letters, letters in squares.
Left out are digits, punctuation, operators of mathematics, and scripts that have no blanks between words.
"""

LOOK_ALIKES = {
    "a": "ɐɑαаᎪᗄᗅᴀᶏⱥꓮꓯ𐊠𖽀🅐🅰",
    "ae": "æӕ",
    "b": "ƀƃƅɓʙβбвьѣҍᏏᏴᑲᑳᖯᗷᵬᶀꓐꞗ𐊂𐊡𐌁🅑🅱",
    "c": "¢©ƈȼɔɕɛͽсєҫԑᏋᏟᴄ₡€ↄⲉⲥꓚꜿꞓꞔ𐊢𐌂𐐩𐐽𐔜𑣎𝼝🅒🅲",
    "d": "ðđƌȡɖɗԁᎠᏧᑯᗞᗪᴅᵭᶁᶑ₫ꓒꓓꟈ🅓🅳",
    "e": "ǝɇɘəεеҽҿәᎬᴇᶒ℮ⱸⴹⴺꓰꓱꬲꬴ𐊆𑣆🅔🅴",
    "f": "ƒϝքᖴᵮᶂẝꓝꜰꞙꬵ𐊇𐊥𐔥𑣂🅕🅵",
    "g": "ƍǥɠɡɢʛԍցᏀᏳᵷᶃꓖꞡ🅖🅶",
    "h": "ħɥɦʜʮʯηнћңһӈӊհᎻᏂᏲᕼⱨⲏꓧꚕꜧꞕ𐋏🅗🅷",
    "i": "ıɨɩɪιіᎥᴉᵻᵼᶖꙇ𑣃𝼚🅘🅸",
    "j": "ɉʝϳјᎫᒍᴊꓙ🅙🅹",
    "k": "ĸƙʞκкқҟᏦᛕᴋᶄ₭ⱪⲕꓗꝁꝃꝅꞣ𐔘𝼃🅚🅺",
    "l": "łƚǀȴɫɬɭʟӏᏞᒪᛁᣳᴌᶅⱡⲓⳑⵏꓡꓲꝉꞁꞎꬷꬸꬹ𐊊𐌉𐑃𐔦𑣒𖼖𖼨𝼄𝼑𝼓🅛🅻",
    "m": "ɯɰɱμϻмպሣᎷᗰᛖᴍᵯᶆⲙꓟꬺꭑ𐊰𐌑🅜🅼",
    "n": "ƞȵɲɳɴոռᵰᶇⲛꓠꞑꞥꬻ𐔓🅝🅽",
    "o": "øɵθοσоѳөօߋଠഠჿዐᎤᎾᏫᴏᴑᴓⱺⲟⴱⵁⵔꓳꝋꝍꬽꬾ𐊒𐊫𐐬𐓪𐔖𑣈𑣕𑣗𝼛🅞🅾",
    "oe": "œɶ",
    "p": "ƥρрᏢᑭᣖᴘᴩᵱᵽᶈⲣꓑꝑꝓꝕ𐊕🅟🅿🆊",
    "q": "ɋʠԛգզᶐⵕꝗꝙꞯ🅠🆀",
    "r": "®ɍɹɺɻɼɽɾɿʀгғᎡᎱᏒᖇᣴᴦᵲᵳᶉⱹⲅꓣꞧꭆꭇꭈꭉꭨ𐓜𖼵𝼈𝼕𝼖🅡🆁",
    "s": "ƽȿʂѕտᏕᏚᣵᵴᶊꓢꜱꞩꟊ𐊖𐑈𑣁𖼺𝼞🅢🆂",
    "t": "ŧƫƭȶʇʈτтҭᎢᎿᴛᵵ₮ⱦⲧꓔꓕ𐊗𐊱𐌕𖼊𝼉𝼍🅣🆃",
    "u": "ʉυսሀᏌᑌᴜᴝᵾᶙꓴꞟꞹꭎꭒ𐓶𑣘𖽂🅤🆄",
    "v": "ʋʌλνлѵӆᏙᐯᐱᣔᴠᴧᶌⱱⱴⴷⴸꓥꓦꛎꛟꝟ𐊍𐓘𐔝𑜆𑣀𖼈𖼽🅥🆅",
    "w": "ʍѡѽӎԝաᎳᏔᴡ₩ⱳꓪꝡ𑓅𑜊𑜎𑜏🅦🆆",
    "x": "χхҳᕁᕽᚷᶍⲭⵝꓫꭓꭕꭖꭗꭘꭙ𐊐𐊴𐌗𐔧🅧🆇",
    "y": "¥ƴɏɣʎʏγуүұყᎩᎽỿⲩꓬꭚ𐊲𑣜𖽃𝼆🅨🆈",
    "z": "ƶȥɀʐʑζᏃᙆᴢᵶᶎⱬꓜ𑣄𑣉🅩🆉",
}
REGIONAL_INDICATORS = {chr(0x1F1E6 + number): chr(ord("a") + number) for number in range(26)}
