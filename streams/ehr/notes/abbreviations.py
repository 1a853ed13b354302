"""Abbreviations that mean one thing in a clinical note, written out, so that either spelling finds the other.

Those with several meanings (RA, MS, CP, PE, LOC, ARF) are left alone unless what stands beside tells. Units and doses
are no abbreviations here: they stay as sent.
"""

from __future__ import annotations

import re
import string

# In any case.
_ANY = """
htn hypertension; copd chronic obstructive pulmonary disease; chf congestive heart failure; hfref heart failure with
reduced ejection fraction; hfpef heart failure with preserved ejection fraction; cabg coronary artery bypass graft;
gerd gastroesophageal reflux disease; esrd end stage renal disease; ckd chronic kidney disease; uti urinary tract
infection; dvt deep vein thrombosis; bph benign prostatic hyperplasia; afib atrial fibrillation; a-fib atrial
fibrillation; dm1 type 1 diabetes mellitus; dm2 type 2 diabetes mellitus; t1dm type 1 diabetes mellitus; t2dm type 2
diabetes mellitus; dmii type 2 diabetes mellitus; iddm insulin dependent diabetes mellitus; niddm type 2 diabetes
mellitus; osa obstructive sleep apnea; pvd peripheral vascular disease; nstemi non ST elevation myocardial infarction;
stemi ST elevation myocardial infarction; tia transient ischemic attack; hld hyperlipidemia; pna pneumonia; aki acute
kidney injury; ards acute respiratory distress syndrome; ptsd post traumatic stress disorder; c/o complains of; h/o
history of; s/p status post; r/o rule out; w/o without; f/u follow up; y/o year old; n/v nausea vomiting; n/v/d nausea
vomiting diarrhea; f/c fever chills; doe dyspnea on exertion; brbpr bright red blood per rectum; lbbb left bundle
branch block; rbbb right bundle branch block; ugib upper gastrointestinal bleed; gib gastrointestinal bleed; svt
supraventricular tachycardia; cxr chest x-ray; ekg electrocardiogram; ecg electrocardiogram; lvh left ventricular
hypertrophy; khk koronare herzkrankheit
"""
# Only in capitals: in small letters they are words, or other things.
_CAPITALS = """
SOB shortness of breath; MI myocardial infarction; CAD coronary artery disease; DM diabetes mellitus; URI upper
respiratory infection; CVA cerebrovascular accident; HF heart failure; AAA abdominal aortic aneurysm; ICH intracranial
hemorrhage; SAH subarachnoid hemorrhage; SDH subdural hematoma; DKA diabetic ketoacidosis; SBO small bowel
obstruction; VT ventricular tachycardia; HIV human immunodeficiency virus; TB tuberculosis; AF atrial fibrillation
"""
_APART = {
    "DM": re.compile(r"(?:robitussin|mucinex|guaifenesin|delsym|coricidin|tussin)[ -]\Z", re.IGNORECASE)
}  # before
_WITHOUT = {
    "CVA": re.compile(r"[ -]?(?:tenderness|angle|pain|percussion)", re.IGNORECASE)
}  # behind: costovertebral angle


def _table(text: str) -> dict[str, str]:
    pairs = (one.strip().partition(" ") for one in text.replace("\n", " ").split(";"))
    return {short: long for short, _, long in pairs}


SMALL = _table(_ANY)
CAPITALS = _table(_CAPITALS)
_KNOWN = SMALL.keys() | {one.lower() for one in CAPITALS}
_SPACES = {code: " " for code in map(ord, string.punctuation + "，、。；：（）") if chr(code) not in "/-"}
_WORD = re.compile(r"[^\W_]+(?:[/-][^\W_]+)*")


def expand(text: str, asked: bool = False) -> str:
    """Abbreviations written out. `asked`: a query, in which small letters stand for capitals too."""
    if _KNOWN.isdisjoint(text.lower().translate(_SPACES).split()):
        return text

    def long(found: re.Match[str]) -> str:
        word = found[0]
        if (said := SMALL.get(word.lower())) is not None:
            return said
        word = word.upper() if asked else word
        if (before := _APART.get(word)) and before.search(text, max(0, found.start() - 14), found.start()):
            return found[0]
        if (behind := _WITHOUT.get(word)) and behind.match(text, found.end()):
            return found[0]
        return CAPITALS.get(word, found[0])

    return _WORD.sub(long, text)
