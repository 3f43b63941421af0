#!/usr/bin/env python3
"""Writes labelled text with and without personal data, made by Faker's providers of many locales.

    pii_corpus.py seen|unseen SEED COUNT

One JSON object a line: the text, and the kind and the byte range of each value in it. Values come from Faker, whose formats
are its own; sentences are Faker's too. Only secrets are made here, after their issuers' descriptions, as Faker has none.
`seen` are the locales that the detector was made with; `unseen` the others, which nobody looked at while making it.
"""
import base64
import json
import random
import string
import sys

from faker import Faker

LOCALES = {
    "seen": ["en_US", "de_DE", "fr_FR", "es_ES"],
    "unseen": ["en_GB", "en_AU", "en_CA", "en_IN", "it_IT", "nl_NL", "pl_PL", "pt_BR", "pt_PT", "sv_SE", "da_DK", "no_NO",
               "fi_FI", "cs_CZ", "ro_RO", "de_AT", "de_CH", "fr_CA", "tr_TR", "ja_JP", "zh_CN", "ko_KR", "ru_RU", "uk_UA"],
}
WORDS = string.ascii_letters + string.digits


def characters(rng, count, alphabet=WORDS):
    return "".join(rng.choice(alphabet) for _ in range(count))


def encoded(rng, count):
    return base64.urlsafe_b64encode(rng.randbytes(count)).decode().rstrip("=")


def token(rng):
    """A secret that tells by its form."""
    hexadecimal = "0123456789abcdef"
    return rng.choice([
        lambda: "AKIA" + characters(rng, 16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"),
        lambda: rng.choice(["ghp_", "gho_", "ghs_"]) + characters(rng, 36),
        lambda: "github_pat_" + characters(rng, 22) + "_" + characters(rng, 59),
        lambda: "glpat-" + characters(rng, 20, WORDS + "-_"),
        lambda: "hf_" + characters(rng, 34, string.ascii_letters),
        lambda: "sk-proj-" + characters(rng, 48, WORDS + "-_"),
        lambda: "sk-ant-api03-" + characters(rng, 93, WORDS + "-_") + "AA",
        lambda: "xoxb-" + characters(rng, 12, string.digits) + "-" + characters(rng, 13, string.digits) + "-" + characters(rng, 24),
        lambda: "AIza" + characters(rng, 35, WORDS + "-_"),
        lambda: "sk_live_" + characters(rng, 24),
        lambda: "SG." + encoded(rng, 16) + "." + encoded(rng, 32),
        lambda: "npm_" + characters(rng, 36),
        lambda: "dop_v1_" + characters(rng, 64, hexadecimal),
        lambda: ".".join([base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').decode().rstrip("="),
                          base64.urlsafe_b64encode(json.dumps({"sub": characters(rng, 10), "iat": 1516239022}).encode()).decode().rstrip("="),
                          encoded(rng, 32)]),
        lambda: "-----BEGIN PRIVATE KEY-----\n" + "\n".join(base64.b64encode(rng.randbytes(48)).decode() for _ in range(4))
                + "\n-----END PRIVATE KEY-----",
    ])()


def positives(fake, rng):
    """Kind, value and what may stand before it."""
    account, card = fake.iban(), fake.credit_card_number()
    return [
        ("EMAIL", fake.email(), ["", "e-mail: ", "<", "mailto:"]),
        ("EMAIL", fake.company_email(), ["", "contact "]),
        ("EMAIL", fake.ascii_free_email(), ["", "cc "]),
        ("PHONE", fake.phone_number(), ["", "Tel: ", "phone ", "☎ "]),
        ("PHONE", fake.phone_number(), ["", "Tel.: ", "mobile: "]),
        ("IBAN", fake.iban(), ["", "IBAN "]),
        ("IBAN", grouped(account), ["", "IBAN: "]),
        ("CARD", fake.credit_card_number(), ["", "card "]),
        ("CARD", grouped(card) if len(card) == 16 else card, ["", "card: "]),
        ("IP", fake.ipv4_public(), ["", "host ", "from "]),
        ("IP", fake.ipv4_private(), ["", "address="]),
        ("IP", fake.ipv6(), ["", "from "]),
        ("TOKEN", token(rng), ["", "use ", "token="]),
        ("PASSWORD", fake.password(length=rng.randint(10, 20), special_chars=rng.random() < 0.5), ["password: ", "DB_PASSWORD=", "\"api_key\": \"", "secret = '"]),
    ]


def grouped(number):
    return " ".join(number[i:i + 4] for i in range(0, len(number), 4))


def negatives(fake, rng):
    """What looks like personal data of these kinds and is none."""
    return [
        fake.date(), fake.date("%d.%m.%Y"), fake.date("%m/%d/%Y"), fake.iso8601(), fake.time(), str(fake.unix_time()),
        fake.isbn13(), fake.isbn10(), fake.ean13(), fake.ean8(), fake.uuid4(), fake.md5(), fake.sha1(), fake.sha256(),
        fake.mac_address(), fake.user_agent(), fake.numerify("#.#.#"), "version " + fake.numerify("%.#.#.#"), fake.file_path(),
        fake.uri(), fake.hex_color(), fake.postcode(), fake.street_address().replace("\n", ", "),
        fake.numerify("%#,###,###.##"), fake.numerify("% ### ### €"), fake.numerify("$%##,###"), fake.numerify("order #%#########"),
        fake.numerify("invoice %####-%#####"), fake.numerify("%###############"), str(rng.random()), str(rng.uniform(-1e9, 1e9)),
        f"{fake.latitude()}, {fake.longitude()}", fake.slug(), fake.license_plate(), fake.numerify("%#-%#-%#"),
        fake.bothify("SKU-????-########"), fake.currency_code() + fake.numerify(" %####"), fake.numerify("%### %### %###"),
        fake.color(), fake.mime_type(), fake.name(), fake.company(), fake.user_name(), "@" + fake.user_name(),
        f"std::{fake.word()}::{fake.word()}", fake.numerify("%:##:## / ##:##"), fake.numerify("(%#, ##, ##)"), fake.numerify("1%##-20##"),
    ]


def put(text, spans, kind, value):
    start = len(text.encode())
    spans.append([kind, start, start + len(value.encode())])
    return text + value


def example(fake, rng, item):
    kind, value, before = item
    spans = []
    text = fake.sentence() + " " + rng.choice(before)
    text = put(text, spans, kind, value)
    end = {"<": ">", "\"": "\"", "'": "'"}.get(text[: -len(value)][-1:], rng.choice(["", ".", ", ", " "]))
    return {"text": text + end + " " + fake.sentence(), "spans": spans}


def main():
    which, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    for locale in LOCALES[which]:
        rng = random.Random(f"{seed} {locale}")
        fake = Faker(locale)
        fake.seed_instance(seed)
        for _ in range(count):
            for item in positives(fake, rng):
                print(json.dumps({"locale": locale, **example(fake, rng, item)}))
            for value in negatives(fake, rng):
                text = f"{fake.sentence()} {value} {fake.sentence()}"
                print(json.dumps({"locale": locale, "text": text, "spans": []}))
            print(json.dumps({"locale": locale, "text": fake.paragraph(8), "spans": []}))


main()
