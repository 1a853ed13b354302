"""What adults of the longitudinal cohort live with and come with: codes (ICD-10-CM), words, departments.

Made up so that codes, texts and outcomes agree; no source for treating anybody, and no real hospital's rates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Code:
    """An ICD-10-CM code and its name."""

    code: str
    name: str


@dataclass(frozen=True, slots=True)
class Chronic:
    """A long illness. `at_60` is the logit of having it at 60 years, `per_decade` its change with age."""

    diagnosis: Code
    at_60: float
    per_decade: float
    words: str


HEART_FAILURE, COPD, DIABETES, KIDNEY = "I50.9", "J44.9", "E11.9", "N18.30"
HYPERTENSION, FIBRILLATION, CANCER, DEMENTIA = "I10", "I48.91", "C80.1", "F03.90"

CHRONIC: tuple[Chronic, ...] = (
    Chronic(Code(HEART_FAILURE, "Heart failure, unspecified"), -2.2, 0.5, "heart failure"),
    Chronic(Code(COPD, "Chronic obstructive pulmonary disease, unspecified"), -1.9, 0.25, "COPD"),
    Chronic(Code(DIABETES, "Type 2 diabetes mellitus without complications"), -1.2, 0.2, "type 2 diabetes"),
    Chronic(Code(KIDNEY, "Chronic kidney disease, stage 3 unspecified"), -2.0, 0.45, "chronic kidney disease"),
    Chronic(Code(HYPERTENSION, "Essential (primary) hypertension"), -0.3, 0.4, "high blood pressure"),
    Chronic(Code(FIBRILLATION, "Unspecified atrial fibrillation"), -2.3, 0.6, "atrial fibrillation"),
    Chronic(Code(CANCER, "Malignant (primary) neoplasm, unspecified"), -2.7, 0.3, "cancer under treatment"),
    Chronic(Code(DEMENTIA, "Unspecified dementia without behavioral disturbance"), -3.6, 1.1, "dementia"),
)

MED, SUR, CARD, NEUR, ORTH = DEPARTMENTS = ("MED", "SUR", "CARD", "NEUR", "ORTH")  # PV1-10
VAGUE = Code("R69", "Illness, unspecified")  # what a busy desk writes; the words then tell more than the code


@dataclass(frozen=True, slots=True)
class Complaint:
    """Why somebody comes.

    `departments` are logits of where it is treated (-3 for the others), `shifts` change one of them for a condition or
    for "old" (75 years and more) or "young" (below 40). `levels` weigh how ill they come (0 well to 4 critical).
    """

    reason: Code
    words: tuple[str, ...]
    departments: Mapping[str, float]
    levels: tuple[int, int, int, int, int] = (50, 30, 15, 4, 1)
    weight: float = 1.0
    shifts: tuple[tuple[str, str, float], ...] = ()
    finals: Mapping[str, Code] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


_PNEUMONIA = Code("J18.9", "Pneumonia, unspecified organism")
_SEPSIS = Code("A41.9", "Sepsis, unspecified organism")
_INFARCTION = Code("I21.4", "Non-ST elevation (NSTEMI) myocardial infarction")
_STROKE = Code("I63.9", "Cerebral infarction, unspecified")
_SEIZURE = Code("R56.9", "Unspecified convulsions")
_ULCER = Code("K27.9", "Peptic ulcer, site unspecified, without hemorrhage or perforation")
_APPENDIX = Code("K35.80", "Unspecified acute appendicitis")
_ILEUS = Code("K56.609", "Unspecified intestinal obstruction, unspecified as to partial versus complete obstruction")

EMERGENCIES: tuple[Complaint, ...] = (
    Complaint(
        Code("R07.9", "Chest pain, unspecified"),
        ("tight chest on the stairs", "pressure behind the breastbone", "stabbing pain left of the sternum"),
        {CARD: 1.8, MED: 0.2, SUR: -2.0},
        (55, 28, 12, 4, 1),
        2.0,
        (("young", MED, 1.9), (HEART_FAILURE, CARD, 0.8)),
        {CARD: _INFARCTION, MED: _PNEUMONIA},
        ("chest pain at rest", "diaphoresis"),
        ("syncope", "fever", "leg swelling"),
    ),
    Complaint(
        Code("R06.02", "Shortness of breath"),
        (
            "cannot catch breath lying flat",
            "wheezing and out of breath since yesterday",
            "short of breath for two days",
        ),
        {MED: 0.9, CARD: 0.4, SUR: -2.5},
        (15, 32, 33, 16, 4),
        2.0,
        ((HEART_FAILURE, CARD, 2.2), (COPD, MED, 2.0), (FIBRILLATION, CARD, 0.8)),
        {CARD: Code(HEART_FAILURE, "Heart failure, unspecified"), MED: _PNEUMONIA},
        ("bibasal crackles", "productive cough"),
        ("chest pain", "hemoptysis", "calf tenderness"),
    ),
    Complaint(
        Code("R10.9", "Unspecified abdominal pain"),
        ("cramps in the belly", "pain in the lower right of the abdomen", "sharp epigastric pain after meals"),
        {SUR: 1.4, MED: 0.4},
        (45, 34, 15, 5, 1),
        1.6,
        ((CANCER, MED, 1.4), ("old", SUR, 0.5), ("young", SUR, 0.7)),
        {SUR: _APPENDIX, MED: _ULCER},
        ("abdominal tenderness", "nausea"),
        ("vomiting", "jaundice", "melena"),
    ),
    Complaint(
        Code("R50.9", "Fever, unspecified"),
        ("fever and shaking chills", "hot and shivering since last night", "high temperature for three days"),
        {MED: 2.0, SUR: 0.0, NEUR: -1.6},
        (12, 30, 36, 17, 5),
        1.4,
        ((CANCER, MED, 1.0), (DIABETES, SUR, 0.9)),
        {MED: _SEPSIS, SUR: Code("L03.90", "Cellulitis, unspecified")},
        ("rigors", "fever"),
        ("neck stiffness", "rash", "dysuria"),
    ),
    Complaint(
        Code("R55", "Syncope and collapse"),
        (
            "passed out at breakfast",
            "fainted while standing in line",
            "found on the floor, woke up by himself or herself",
        ),
        {CARD: 0.7, NEUR: 0.6, MED: 0.6},
        (55, 30, 11, 3, 1),
        1.1,
        ((FIBRILLATION, CARD, 1.9), ("old", MED, 0.9), ("young", NEUR, 0.9)),
        {CARD: Code("I44.2", "Atrioventricular block, complete"), NEUR: _SEIZURE, MED: Code("E86.0", "Dehydration")},
        ("loss of consciousness", "dizziness"),
        ("tongue bite", "chest pain", "palpitations"),
    ),
    Complaint(
        Code("R41.0", "Disorientation, unspecified"),
        ("confused since the morning", "does not know where she or he is", "new muddled speech and restlessness"),
        {MED: 0.8, NEUR: 0.8},
        (22, 34, 28, 13, 3),
        1.0,
        (("old", MED, 1.4), (DEMENTIA, MED, 1.2), (FIBRILLATION, NEUR, 0.9)),
        {MED: Code("N39.0", "Urinary tract infection, site not specified"), NEUR: _STROKE},
        ("confusion", "agitation"),
        ("headache", "focal weakness", "fever"),
    ),
    Complaint(
        Code("R29.810", "Facial weakness"),
        ("face drooping on one side", "slurred speech and a weak arm", "mouth hangs to the left since noon"),
        {NEUR: 2.6, MED: -0.4},
        (48, 34, 13, 4, 1),
        0.9,
        (("young", MED, 0.9),),
        {NEUR: _STROKE, MED: Code("G51.0", "Bell's palsy")},
        ("facial droop", "slurred speech"),
        ("seizure", "headache", "visual loss"),
    ),
    Complaint(
        Code("M25.551", "Pain in right hip"),
        ("fell at home, cannot stand on the leg", "hip pain after a fall", "tripped on a rug and cannot walk"),
        {ORTH: 2.3, SUR: -0.2, MED: -0.4},
        (60, 28, 9, 2, 1),
        1.2,
        (("old", ORTH, 0.6), (DEMENTIA, MED, 0.9)),
        {ORTH: Code("S72.001A", "Fracture of unspecified part of neck of right femur, initial encounter")},
        ("shortened and rotated leg", "hip pain"),
        ("head injury", "loss of consciousness", "numbness"),
    ),
    Complaint(
        Code("R11.2", "Nausea with vomiting, unspecified"),
        ("throwing up everything", "vomiting and a bloated belly", "nausea and no stool for days"),
        {MED: 1.0, SUR: 0.8},
        (42, 34, 17, 6, 1),
        1.1,
        ((CANCER, SUR, 0.9), (DIABETES, MED, 1.0), ("old", SUR, 0.4)),
        {SUR: _ILEUS, MED: Code("K52.9", "Noninfective gastroenteritis and colitis, unspecified")},
        ("vomiting", "abdominal distension"),
        ("hematemesis", "diarrhea", "fever"),
    ),
)

ELECTIVES: tuple[Complaint, ...] = (
    Complaint(
        Code("M16.11", "Unilateral primary osteoarthritis, right hip"),
        ("for a new hip joint", "planned hip replacement"),
        {ORTH: 3.5, SUR: 0.0},
        (80, 18, 2, 0, 0),
        1.6,
        findings=("hip pain", "limping gait"),
        absent=("fever", "chest pain", "wound infection"),
    ),
    Complaint(
        Code("K80.20", "Calculus of gallbladder without cholecystitis without obstruction"),
        ("for removal of the gallbladder", "planned keyhole surgery for gallstones"),
        {SUR: 3.2, MED: -0.2},
        (82, 16, 2, 0, 0),
        1.4,
        findings=("gallstones", "right upper quadrant pain"),
        absent=("jaundice", "fever", "vomiting"),
    ),
    Complaint(
        Code("I25.10", "Atherosclerotic heart disease of native coronary artery without angina pectoris"),
        ("for coronary angiography", "planned catheter of the heart"),
        {CARD: 3.0, SUR: 0.9},
        (72, 22, 5, 1, 0),
        1.0,
        (("old", SUR, -0.5),),
        findings=("exertional chest pain",),
        absent=("syncope", "orthopnea", "bleeding"),
    ),
)


@dataclass(frozen=True, slots=True)
class Home:
    """What somebody goes home to, in the words of the discharge nurse; `risk` adds to the logit of coming back."""

    words: str
    weight: float
    risk: float


HOMES: tuple[Home, ...] = (
    Home("Lives with a partner, manages well.", 3.0, 0.0),
    Home("Lives with family, help with shopping arranged.", 2.5, 0.0),
    Home("Independent, drives and walks daily.", 2.0, -0.5),
    Home("Lives alone and has no help at home.", 1.5, 0.8),
    Home("Missed several doses of medicines before this stay, does not fill prescriptions.", 1.2, 1.1),
)
RELATIVES = ("Father", "Mother", "A brother", "A sister", "A grandfather")
INHERITED = ("myocardial infarction at 58", "stroke", "breast cancer", "type 2 diabetes", "colon cancer", "epilepsy")
