"""The words that turn a statement about a patient: what denies, doubts, speaks of the family, and what ends that.

After NegEx (Chapman et al., J Biomed Inform 2001;34:301), which gave negations, pseudo-negations and terminations their
names, and ConText (Harkema et al., J Biomed Inform 2009;42:839), which added the experiencer and the hypothetical. The
lists are our own, in English and German; Chinese has its own file. `(a|b|)` stands for one of several words, or none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from schemas.lexicon import words

# What a text says of the words in a scope. Of two that meet the higher holds: who denies an illness of the family has
# told of none, and a doubt about one's father is not a doubt about the patient.
AFFIRMED, UNCERTAIN, FAMILY, NEGATED = range(4)


class Way(Enum):
    BEFORE = "before"  # stands before what it turns; behind it where nothing follows: "Fever: no"
    BEHIND = "behind"
    EITHER = "either"  # behind where a verb of being precedes or nothing follows: "is likely", "likely viral"
    BOTH = "both"  # pneumonia versus atelectasis
    PSEUDO = "pseudo"  # looks like one and turns nothing
    END = "end"  # ends a scope
    SOFT_END = "soft end"  # the same, once the scope has a word


@dataclass(frozen=True, slots=True)
class Trigger:
    way: Way
    label: int = AFFIRMED
    listed: bool = True  # goes on over commas; else only where the list has an "or"
    words: int = 1000  # ends after as many


_NEGATED_BEFORE = """
no; nor; neither; (without|w/o); (den(ies|ied|y|ying)); denial of;
(is|was|were|are|been|remains|remained|all|both|otherwise|) (negative|neg) for; (free|clear) (of|from); (lack
of|lacks|lacked|lacking); absence of; (rules|ruled|is ruled|was ruled|were ruled|been ruled) out for; rul(ed|ing)
(him|her|the patient|patient) out for; ruled out; rules out; never; nothing (to suggest|suggesting|to
indicate|consistent with); (fails|failed) to (reveal|show|demonstrate); unable to
(detect|find|appreciate|identify|palpate|demonstrate|see); unremarkable for; (argues|argue|evidence) against;
(cannot|not) (see|appreciate|identify|find|detect|palpate|feel); none of; not
(have|had|having|show|shown|reveal|demonstrate|exhibit|report|reported|complain of|complained of|complaining of); not
(experience|experienced|experiencing|note|noted|noticed|notice|display|suggest|suggestive of|indicate|endorse|recall);
not (known to have|associated with|accompanied by|consistent with|compatible with|positive
for|develop|developed|suffer from); not (appear to have|seem to have|been diagnosed with|diagnosed
with|believe|think|feel|significant for|meet criteria for); not (found to have|noted to
have|contain|use|using|taking|on|require|required|received|had any); (no|not any|without|without any)
(evidence|sign|signs|indication|suggestion|findings|symptoms|complaints) (of|for|to suggest|suggestive of);
(no|without) (history|prior history|previous history|past history|known history) of; no longer
(has|have|had|having|any|); (low|no) suspicion (of|for); inconsistent with; insufficient evidence (of|for|to suggest);
(is|are|was|were|has|have|had|been|) not (been|) (noted|found|felt|thought|known|observed|reported|seen|believed) to
(have|be|show|demonstrate|represent); zero; (is|are|was|were|seems|seem|appears|) (highly|very|) unlikely (to be|to
represent|to have); (denies|denied) that (he|she|they|there) (has|have|had|was|is|were|are) (ever|) (had|);
kein(e|en|er|em|es|erlei|); ohne; verneint; frei von; ausschluss (einer|eines|von); weder; kein (anhalt|hinweis)
(auf|für); keine (anhaltspunkte|hinweise|zeichen) (für|auf|von|einer|eines)
"""
_NEGATED_NEAR = """
(instead of|rather than)
"""
_NEGATED_EITHER = """
negative; neg; absent; unlikely
"""
_NEGATED_BEHIND = """
(is|are|was|were|be|been|being|has been|have been|had been|) (effectively|essentially|) (ruled|r/o'd) out;
(is|are|was|were|has been|have been|) (excluded|denied); (is|are|was|were) absent;
(is|are|was|were|seems|seem|appears|appear|be) (considered|felt|thought|felt to be|thought to be|) (highly|very|)
unlikely; (is|are|was|were|been|remain|remained|remains|came back|returned|all|also|both|otherwise) (all|both|)
negative; (is|are|was|were|has|have|had|been|) not (been|)
(seen|identified|present|noted|found|detected|visualized|visualised|appreciated); (is|are|was|were|has|have|had|been|)
not (been|) (observed|demonstrated|evident|palpable|palpated|felt|heard|elicited|suspected);
(is|are|was|were|has|have|had|been|) not (been|)
(apparent|indicated|shown|reported|endorsed|enlarged|likely|confirmed); none (seen|noted|identified|found|reported|);
nil; (is|are|was|were) (all|) (denied|none); not detected; nonreactive; non reactive; never
(seen|found|identified|demonstrated|documented|confirmed|present); argues against (it|this); nicht
(nachweisbar|nachgewiesen|erkennbar|sichtbar|abgrenzbar|vorhanden|tastbar|gesehen|bekannt|gefunden); ausgeschlossen;
(wurde|wird|werden|wurden) (verneint|ausgeschlossen); (verneint); negativ
"""
_FREE = "free"  # pain free
_UNCERTAIN_BEFORE = """
(rule|ruling) out; r/o; to rule out; exclude; to exclude;
(evaluate|evaluation|evaluated|evaluating|assess|assessed|workup|work up) for;
(screen|screened|screening|check|checked|checking|monitor|monitored|monitoring|watch|look|looking|test|tested|testing)
for; (risk|risks) (of|for); at (high|increased|low|) risk (of|for); in (case|the event) of; (in case|if); unless;
should (he|she|you|they|it|patient|the patient|there be|any); (return|call) (for|if|with|to the emergency department
for); differential (diagnosis|diagnoses|) (includes|include|including|included|of|is|); ddx; (cannot|not) (be|)
(completely|entirely|definitively|) (exclude|rule out|excluded|ruled out); (can|could) not (completely|entirely|)
(exclude|rule out); (prophylaxis|prophylactic treatment) (for|against|of); (prevent|prevention of|to prevent); as
needed for; prn (for|); unclear (if|whether); (uncertain|unsure|not sure|not certain|not clear|question) (if|whether);
verdacht auf; v a; verdächtig auf; nicht auszuschließen; zum ausschluss (von|einer|eines|); differentialdiagnostisch;
dd
"""
_UNCERTAIN_NEAR = """
possible; possibly; probable; probably; (most|very|more|) likely (to be|represents|representing|due to|secondary to);
suspect; suspects; suspicious for; (high|clinical|strong|some|) suspicion (of|for|is); concern (for|of);
(concerned|concerning|worried) (for|about); worrisome for; (is|was|) doubtful (that|if|whether); question of whether;
suggest(s|ed|ing|); suggestive of; (question|questions) of; questionable; query; questioning; presumed; presumptive;
presumably; presumptively; may; might; maybe; perhaps; potential; potentially; could
(be|have|represent|reflect|indicate|also be); (possibility|likelihood|probability|chance) of;
(consider|considering|consideration of); (indeterminate|equivocal) for; thought to (represent|be|have|possibly be);
(believed|felt) to (be|represent); (doubt|doubts); (would be|is) worrisome for; impression of (a|) possible;
möglich(e|er|es|en|erweise|); wahrscheinlich(e|er|es|en|); fraglich(e|er|es|en|); vermutlich(e|er|es|en|)
"""
_UNCERTAIN_EITHER = """
(is|are|was|were|be|remains|seems|appears) (also|still|most|very|quite|) likely; (most|very|) likely; suspected; am
ehesten; vermutet
"""
_UNCERTAIN_BEHIND = """
(is|are|was|were|be|remains|remain|seems|seem|appears) (also|still|strongly|highly|most|very|quite|thought|)
(possible|probable|suspected|questionable); (is|are|was|were|be|)
(doubtful|questioned|considered|equivocal|indeterminate|presumed); (cannot|can not|could not|not) be
(completely|entirely|definitively|fully|) (excluded|ruled out); (is|are|was|were|has|have|) not (been|)
(completely|entirely|definitively|fully|) (excluded|ruled out); (to|should|must|needs to|need to|will|would|could) be
(ruled out|excluded|considered); in the differential (diagnosis|); (is|remains|was) (also|) (a|one|an)
(concern|possibility|consideration); (precautions|prophylaxis); nicht (sicher|) (auszuschließen|ausgeschlossen);
should be suspected
"""
_UNCERTAIN_BOTH = """
versus; vs
"""
_PSEUDO = """
(no|without) (significant|suspicious|definite|interval|appreciable|acute|major|real|further|) (significant|interval|)
(change|changes|increase|decrease|improvement|worsening|growth) (in|of|from|since|to|); not
(only|necessarily|just|drain|cause|extend|limited to|because|due to|helped by|relieved by|worsened
by|improved|controlled|resolved|improving); not (specified|elsewhere classified|otherwise specified|elsewhere
specified|further specified|well controlled|yet resolved|to be confused with|to mention); not (well|been well)
(controlled|tolerated|managed|explained|understood); not (compliant|adherent|complaint) with; not
(responding|respond|responsive) to; not (seen|present|noted|identified|visualized) (previously|before|on (the|)
(prior|previous)|in (the|) (prior|previous)); not (new|changed|worse|better|unusual); gram negative; (false|rh|rhesus)
negative; negative (pressure|feedback|balance|inspiratory|symptoms); coagulase negative; lactose non; without
(difficulty|further|help|assistance|resolution|relief|improvement); no (doubt|question|matter|reason to|response
to|relief|relief of|benefit|more than|less than); no (improvement|resolution|decrease) (in|of); (if|when) (it is|)
(necessary|needed|possible|tolerated|able|indicated); as (much|soon|well|early|little|often) as possible; if any;
(in|of|on|by|late|early|until|since|mid) may; may
(return|resume|go|shower|drive|use|take|continue|need|require|follow); what if; as if; suggested (that|he|she|a|we);
likely (to|discharge|need|will|be discharged); possible (discharge|transfer|side effects); whether or not; weather or
not; not for; no one; no change; considering (that|his|her|the); under consideration; not uncommon; not
infrequent(ly|); not unusual; free (air|fluid|water|text); clear (lungs|fluid)
"""
_END = """
but; however; although; though; nevertheless; nonetheless; except; except for; excepting; other than; apart from;
aside from; besides; with the exception of; which; who; whom; because; since; due to; secondary to; owing to;
attributed to; caused by; until; while; whereas; when; after; before; following; despite; therefore; given
(his|her|the|that); as (a|the|an|) (cause|source|etiology|reason|origin|result|consequence) (of|for); and
(he|she|they|it|there|then|now|also|positive|with|the patient|patient|pt|did have|does have|did report);
(presents|presented|presenting|complains|complained|complaining|endorses|endorsed|admits|admitted|reports|reported)
(of|to|with|for|having|some|that|); positive (for|); now (with|has|having); status post; s/p; (does|did|do)
(have|report|complain|admit|endorse|note|show); with
(a|an|some|mild|moderate|severe|good|positive|stable|normal|intact|known|new|persistent|chronic|acute|evidence
of|history of|associated); in (the|a|) (setting|context|patient|patients) (of|with); (history|hx) significant for;
remarkable for; significant for; consistent with; compatible with; of (his|her|known|the known); including (her|his);
so; thus; otherwise; instead; yet; still (has|have|with); aber; jedoch; außer; bis auf; bei; wegen; infolge; nach;
zustand nach; z n; sondern; seit; aufgrund
"""
_SOFT_END = """
he; she; they; the patient; there (is|are|was|were); for; from; on; during; upon; at; with; by; via; per; than; that;
to (treat|relieve|control|help|prevent|suggest|explain|account for); as
"""
RELATIVES = words(
    """mother father brother brothers sister sisters aunt aunts uncle uncles grandmother grandfather grandparent
    grandparents grandma grandpa cousin cousins parent parents sibling siblings son sons daughter daughters niece
    nephew mom dad maternal paternal wife husband spouse relative relatives mgm mgf pgm pgf mutter vater bruder
    schwester tante onkel großmutter großvater oma opa eltern geschwister sohn tochter cousine"""
)
_FAMILY = """
family (history|hx|hist|medical history) (of|for|); (fh|fhx|famhx) (of|for|positive for|); familial (history of|);
family members; family member; runs in (the|his|her|) family; (strong|positive|significant) family history (of|for|);
familienanamnese; familiär(e|er|es|); in der familie
"""
# Somebody of the family who tells of the patient, or stands beside: no illness of theirs.
TELLS = words(
    """states stated reports reported says said notes noted tells told describes described denies denied believes
    thinks thought brought called calls found noticed confirms confirmed gave gives worried concerned present
    bedside agrees accompanied requests wants lives feels helps visited witnessed observed takes took drove saw
    provides provided who's berichtet gibt"""
)
BESIDE = words("per by with from to via contact informed and between lives")  # with his mother
POSSESSIVE = words("his her the patient pt their my a ihre seine der die")
FAMILY_END = frozenset(("patient", "pt", "himself", "herself", "patientin"))

# A clause of its own has one of these: "no fever, cough is productive".
FINITE = words(
    """is are was were has had have does did will would can should shows showed reveals revealed demonstrates
    demonstrated continues continued remains remained states stated complains complained presents presented
    developed underwent received started improved increased decreased resolved worsened went came took takes gave
    appears appeared became feels felt seems denies denied reports noticed persists occurred began ist sind war
    waren hat hatte wurde wird besteht bestehen zeigt zeigte"""
)
BEING = words("is are was were be been being remains remained ist sind war waren wurde wurden")
SEEN = words(
    """seen noted identified heard found detected appreciated present observed elicited palpated visualized
    visualised reported evident demonstrated palpable felt known nachweisbar"""
)
# A chunk of a list that begins so is a finding and no further item: "no effusion, mild edema".
FINDING = words(
    """mild mildly moderate moderately severe positive small large stable chronic persistent some occasional trace
    slight slightly minimal increased decreased multiple unchanged + old new bilateral left right diffuse healed
    known marked prominent"""
)
NEW_CHUNK = words(
    """with which who status then also now currently today yesterday secondary s/p likely possible probable probably
    possibly possible rule r/o this that these his her he she we i will patient pt continue continues recommend
    plan start follow including"""
)
NOT = Trigger(Way.BEFORE, NEGATED, listed=False, words=4)  # alone: "not tender"; "did not want surgery for her cancer"
_TABLE = (
    (_NEGATED_BEFORE, Trigger(Way.BEFORE, NEGATED)),
    (_NEGATED_NEAR, Trigger(Way.BEFORE, NEGATED, listed=False)),
    (_NEGATED_EITHER, Trigger(Way.EITHER, NEGATED, listed=False)),
    (_NEGATED_BEHIND, Trigger(Way.BEHIND, NEGATED)),
    (_FREE, Trigger(Way.BEHIND, NEGATED, words=2)),
    (_UNCERTAIN_BEFORE, Trigger(Way.BEFORE, UNCERTAIN)),
    (_UNCERTAIN_NEAR, Trigger(Way.BEFORE, UNCERTAIN, listed=False)),
    (_UNCERTAIN_EITHER, Trigger(Way.EITHER, UNCERTAIN, listed=False)),
    (_UNCERTAIN_BEHIND, Trigger(Way.BEHIND, UNCERTAIN)),
    (_UNCERTAIN_BOTH, Trigger(Way.BOTH, UNCERTAIN, listed=False)),
    (_PSEUDO, Trigger(Way.PSEUDO)),
    (_END, Trigger(Way.END)),
    (_SOFT_END, Trigger(Way.SOFT_END)),
    (_FAMILY, Trigger(Way.BEFORE, FAMILY)),
    (";".join(RELATIVES), Trigger(Way.BEFORE, FAMILY)),
)
_GROUP = re.compile(r"\(([^()]*)\)")
Node = dict[str, Any]  # of a word the words that may follow; under "" the trigger that ends here


def phrases(pattern: str) -> Iterator[str]:
    """All that a pattern stands for, innermost groups first."""
    found = _GROUP.search(pattern)
    if found is None:
        yield " ".join(pattern.split())
        return
    for one in found[1].split("|"):
        yield from phrases(pattern[: found.start()] + one + pattern[found.end() :])


def _tree() -> Node:
    root: Node = {}
    for text, trigger in _TABLE:
        for pattern in text.replace("\n", " ").split(";"):
            for phrase in phrases(pattern.strip()):
                _plant(root, phrase, trigger)
    _plant(root, "not", NOT)
    return root


def _plant(root: Node, phrase: str, trigger: Trigger) -> None:
    node = root
    for word in phrase.split():
        node = node.setdefault(word, {})
    if phrase:
        node.setdefault("", trigger)


TREE = _tree()
# A sentence without any of these, one of each phrase, is about the patient and affirmed: most are, and cost a look.
_COMMON = words(
    """a all also am an any appear appears are as at be been being both by call came can case check clear could der
    did do does effectively er event felt for had has have he high him her how if in is it look low more most must
    need needs of on one or otherwise patient quite remain remained remains returned seem seems she should
    significant some still strong test that the there they thought to was were will with would you"""
)


def _telling(phrase: str) -> str:
    words = phrase.split()
    return next((word for word in words if word not in _COMMON), words[0])


TELLING = {
    _telling(phrase)
    for text, trigger in _TABLE
    if trigger.way not in (Way.END, Way.SOFT_END, Way.PSEUDO)
    for pattern in text.replace("\n", " ").split(";")
    for phrase in phrases(pattern.strip())
    if phrase
} - {"clear"} | {"not"}
