"""Find out what a number format of a workbook shows with a number: another currency than USD, or another scale.

A workbook keeps both in the format. A cell's value is 1244.5 where people see 1.244,50 €, and 124450 where they see
1244.50 by the format ``0"."00``.
"""

from __future__ import annotations

import re
import unicodedata

#: Codes of ISO 4217 that are no common word: ALL is left out, because freight rates are "all in".
_CODES = (
    "AED|AFN|AMD|ANG|AOA|ARS|AUD|AWG|AZN|BAM|BBD|BDT|BGN|BHD|BIF|BMD|BND|BOB|BRL|BSD|BTN|BWP|BYN|BZD|CAD|CDF|CHF|CLP|"
    "CNH|CNY|COP|CRC|CUP|CVE|CZK|DJF|DKK|DOP|DZD|EGP|ERN|ETB|EUR|FJD|FKP|GBP|GEL|GHS|GIP|GMD|GNF|GTQ|GYD|HKD|HNL|HTG|"
    "HUF|IDR|ILS|INR|IQD|IRR|ISK|JMD|JOD|JPY|KES|KGS|KHR|KMF|KPW|KRW|KWD|KYD|KZT|LAK|LBP|LKR|LRD|LSL|LYD|MAD|MDL|MGA|"
    "MKD|MMK|MNT|MOP|MRU|MUR|MVR|MWK|MXN|MYR|MZN|NAD|NGN|NIO|NOK|NPR|NZD|OMR|PAB|PEN|PGK|PHP|PKR|PLN|PYG|QAR|RMB|RON|"
    "RSD|RUB|RWF|SAR|SBD|SCR|SDG|SEK|SGD|SHP|SLE|SOS|SRD|SSP|STN|SYP|SZL|THB|TJS|TMT|TND|TOP|TRY|TTD|TWD|TZS|UAH|UGX|"
    "UYU|UZS|VES|VND|VUV|WST|XAF|XCD|XDR|XOF|XPF|YER|ZAR|ZMW|ZWL"
)
#: Names and abbreviations that people write instead, the dollars of other countries, and their shares of a dollar.
_NAMES = re.compile(
    rf"\b(?:{_CODES})\b|\b(?:kr|zł|Kč|Ft|lei|RM|Rp|Rs|Fr|CFA|Dhs?)\b|[元円]|(?<![A-Za-z])(?!US\$)[A-Z]{{1,3}}\$"
    r"|\b(?i:euros?|yen|yuan|renminbi|pounds?|sterling|rupees?|roubles?|rubles?|kron[ae]r?|cents?)\b"
)

#: A currency in a number format: its symbol and the symbol's locale.
_BRACKET = re.compile(r"\[\$([^\]-]*)(?:-([^\]]*))?\]")
_LITERAL = re.compile(r'"([^"]*)"|\\(.)|[_*].')

#: Locales with a dollar that is not the US dollar.
_DOLLARS = {
    0x1009: "CAD",
    0x0C0C: "CAD",
    0x0C09: "AUD",
    0x1409: "NZD",
    0x1004: "SGD",
    0x4804: "SGD",
    0x0C04: "HKD",
    0x080A: "MXN",
    0x240A: "COP",
    0x340A: "CLP",
    0x2C0A: "ARS",
    0x0404: "TWD",
}
#: Countries that pay in US dollars, at the end of a locale's name.
_US_DOLLAR_COUNTRIES = ("US", "EC", "SV", "PR")
US_DOLLARS = frozenset({"$", "US$", "USD"})

_PERCENT = re.compile(r"[%‰]")
#: A comma after the last digit's place divides the number by a thousand.
_THOUSANDS = re.compile(r"[0#?],+(?![0#?,])")
_MULTIPLES = re.compile(r"(?:^|[^\w])(?:k|mn?|mio|mln|tsd|thousands?|millions?)(?:$|[^\w])", re.IGNORECASE)
#: A literal that looks like a part of the number: it stands between the places of digits, or touches one with a digit.
_INSIDE = re.compile(r'[0#?]"[.,]"[0#?]|[0#?]"[.,]?\d|\d[.,]?"[0#?]')


def shown_with(number_format: str) -> str | None:
    """Return what a number format shows that its value does not have, or None.

    Args:
        number_format: A number format as in .xlsx, with all its sections.

    Returns:
        Another currency than USD; or the format itself, if it shows percent, multiples or added digits.
    """
    return foreign_currency(number_format) or (f"in the format {number_format}" if _scales(number_format) else None)


def foreign_currency(number_format: str) -> str | None:
    """Return the currency that a number format shows, or None if it shows none or USD."""
    for symbol, locale in _BRACKET.findall(number_format):
        name = symbol.strip()
        if name not in US_DOLLARS | {""}:
            # Digits next to the value would look like a part of it.
            return str(name) if name[0].isalpha() or unicodedata.category(name[0]) == "Sc" else f"in {name}"
        if name == "$" and (other := _dollar_of(locale)):
            return other
    rest = re.sub(r"\[[^\]]*\]", "", number_format)
    literals = "".join(literal or escaped for literal, escaped in _LITERAL.findall(rest))
    bare = _LITERAL.sub("", rest)
    symbol = next((c for c in literals + bare if c != "$" and unicodedata.category(c) == "Sc"), None)
    found = _NAMES.search(literals)
    return symbol or (found[0] if found else None)


def _dollar_of(locale: str) -> str | None:
    """Return the dollar of a locale, if it is not the US dollar."""
    if re.fullmatch(r"[0-9A-Fa-f]{1,8}", locale):
        return _DOLLARS.get(int(locale, 16) & 0xFFFF)
    country = re.search(r"-([A-Z]{2})$", f"-{locale}")
    return f"$ of {locale}" if country and country[1] not in _US_DOLLAR_COUNTRIES else None


def _scales(number_format: str) -> bool:
    """Return whether a format shows a number other than the value."""
    rest = re.sub(r"\[[^\]]*\]", "", number_format)
    literals = " ".join(literal or escaped for literal, escaped in _LITERAL.findall(rest))
    bare = _LITERAL.sub("", rest)
    if not re.search(r"[0#?]", bare):
        return False
    quoted = _LITERAL.sub(lambda found: f'"{found[1] or found[2] or ""}"', rest)
    return any(
        (
            _PERCENT.search(bare + literals),
            _THOUSANDS.search(bare),
            _MULTIPLES.search(literals),
            _INSIDE.search(quoted.replace('""', "")),
        )
    )
