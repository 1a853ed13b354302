"""What the simulated hospital knows of medicine: complaints, laboratory panels, and the sentences of its notes.

Enough that values, flags, diagnoses and texts of one stay agree with each other; no source for treating anybody.
Codes: ICD-10-CM (diagnoses), LOINC (observations), UCUM (units), HL7 table 0078 (abnormal flags).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random


@dataclass(frozen=True, slots=True)
class Analyte:
    """One measured thing: reference range, limits of alarm, and where healthy values lie."""

    code: str  # LOINC
    name: str
    unit: str  # UCUM
    low: float
    high: float
    panic_low: float
    panic_high: float
    decimals: int = 0
    floor: float = 0.0
    ceiling: float = math.inf

    def text(self, value: float) -> str:
        return f"{value:.{self.decimals}f}"

    def range(self) -> str:  # OBX-7
        return f"{self.text(self.low)}-{self.text(self.high)}"

    def flag(self, printed: str) -> str:
        """Abnormal flag (OBX-8) of the value as printed: rounding must not part a value from its flag."""
        value = float(printed)
        if value < self.panic_low:
            return "LL"
        if value > self.panic_high:
            return "HH"
        return "L" if value < self.low else "H" if value > self.high else "N"


@dataclass(frozen=True, slots=True)
class Panel:
    """What is ordered and reported together."""

    code: str
    name: str
    analytes: tuple[str, ...]
    system: str = "LN"


ANALYTES: dict[str, Analyte] = {
    "wbc": Analyte("6690-2", "Leukocytes [#/volume] in Blood", "10*3/uL", 4.0, 11.0, 1.5, 30.0, 1, 0.2),
    "rbc": Analyte("789-8", "Erythrocytes [#/volume] in Blood", "10*6/uL", 4.0, 5.9, 2.0, 8.0, 2, 1.0),
    "hgb": Analyte("718-7", "Hemoglobin [Mass/volume] in Blood", "g/dL", 12.0, 17.0, 7.0, 20.0, 1, 4.0),
    "hct": Analyte("4544-3", "Hematocrit [Volume Fraction] of Blood", "%", 36.0, 51.0, 20.0, 60.0, 1, 10.0),
    "mcv": Analyte("787-2", "MCV [Entitic mean volume] in Red Blood Cells", "fL", 80, 100, 60, 130, 0, 55),
    "plt": Analyte("777-3", "Platelets [#/volume] in Blood", "10*3/uL", 150, 400, 30, 1000, 0, 5),
    "na": Analyte("2951-2", "Sodium [Moles/volume] in Serum or Plasma", "mmol/L", 135, 145, 120, 160, 0, 110),
    "k": Analyte("2823-3", "Potassium [Moles/volume] in Serum or Plasma", "mmol/L", 3.5, 5.1, 2.8, 6.2, 1, 2.0),
    "cl": Analyte("2075-0", "Chloride [Moles/volume] in Serum or Plasma", "mmol/L", 98, 107, 80, 120, 0, 75),
    "co2": Analyte("2028-9", "Carbon dioxide, total [Moles/volume] in Serum or Plasma", "mmol/L", 22, 29, 10, 40, 0, 4),
    "bun": Analyte("3094-0", "Urea nitrogen [Mass/volume] in Serum or Plasma", "mg/dL", 7, 20, 2, 100, 0, 2),
    "creat": Analyte("2160-0", "Creatinine [Mass/volume] in Serum or Plasma", "mg/dL", 0.6, 1.3, 0.2, 7.0, 2, 0.2),
    "glu": Analyte("2345-7", "Glucose [Mass/volume] in Serum or Plasma", "mg/dL", 70, 110, 45, 450, 0, 25),
    "ca": Analyte("17861-6", "Calcium [Mass/volume] in Serum or Plasma", "mg/dL", 8.6, 10.3, 6.5, 13.0, 1, 5.0),
    "trop": Analyte(
        "67151-1",
        "Troponin T.cardiac [Mass/volume] in Serum or Plasma by High sensitivity method",
        "ng/L",
        0,
        14,
        -1,
        52,
        0,
        3,
    ),
    "lac": Analyte("2524-7", "Lactate [Moles/volume] in Serum or Plasma", "mmol/L", 0.5, 2.0, 0.0, 4.0, 1, 0.3),
    "poc": Analyte(
        "41653-7", "Glucose [Mass/volume] in Capillary blood by Glucometer", "mg/dL", 70, 140, 45, 450, 0, 25
    ),
    "ph": Analyte("2744-1", "pH of Arterial blood", "[pH]", 7.35, 7.45, 7.2, 7.6, 2, 6.8, 7.8),
    "pco2": Analyte("2019-8", "Carbon dioxide [Partial pressure] in Arterial blood", "mm[Hg]", 35, 45, 20, 70, 0, 12),
    "po2": Analyte("2703-7", "Oxygen [Partial pressure] in Arterial blood", "mm[Hg]", 80, 100, 45, 500, 0, 35),
    "hco3": Analyte("1960-4", "Bicarbonate [Moles/volume] in Arterial blood", "mmol/L", 22.0, 26.0, 10.0, 40.0, 1, 4.0),
    "hr": Analyte("8867-4", "Heart rate", "/min", 60, 100, 40, 140, 0, 30),
    "rr": Analyte("9279-1", "Respiratory rate", "/min", 12, 20, 8, 30, 0, 6),
    "sbp": Analyte("8480-6", "Systolic blood pressure", "mm[Hg]", 100, 140, 80, 190, 0, 60),
    "dbp": Analyte("8462-4", "Diastolic blood pressure", "mm[Hg]", 60, 90, 40, 115, 0, 30),
    "temp": Analyte("8310-5", "Body temperature", "Cel", 36.1, 37.8, 34.5, 40.0, 1, 33.0),
    "spo2": Analyte(
        "59408-5", "Oxygen saturation in Arterial blood by Pulse oximetry", "%", 94, 100, 86, 101, 0, 70, 100
    ),
}

# Young children's hearts and lungs go faster and their pressures are lower: their own normal ranges.
CHILD: dict[str, Analyte] = {
    "hr": Analyte("8867-4", "Heart rate", "/min", 75, 130, 55, 180, 0, 40),
    "rr": Analyte("9279-1", "Respiratory rate", "/min", 18, 30, 12, 50, 0, 10),
    "sbp": Analyte("8480-6", "Systolic blood pressure", "mm[Hg]", 85, 115, 65, 140, 0, 50),
    "dbp": Analyte("8462-4", "Diastolic blood pressure", "mm[Hg]", 50, 75, 35, 95, 0, 25),
}

PANELS: dict[str, Panel] = {
    "CBC": Panel("58410-2", "CBC panel - Blood by Automated count", ("wbc", "rbc", "hgb", "hct", "mcv", "plt")),
    "BMP": Panel(
        "24321-2",
        "Basic metabolic 2000 panel - Serum or Plasma",
        ("na", "k", "cl", "co2", "bun", "creat", "glu", "ca"),
    ),
    "TROP": Panel("67151-1", "Troponin T.cardiac by High sensitivity method", ("trop",)),
    "LAC": Panel("2524-7", "Lactate [Moles/volume] in Serum or Plasma", ("lac",)),
    "POC": Panel("41653-7", "Glucose [Mass/volume] in Capillary blood by Glucometer", ("poc",)),
    "ABG": Panel("24336-0", "Gas panel - Arterial blood", ("ph", "pco2", "po2", "hco3")),
    "VITALS": Panel("85353-1", "Vital signs panel", ("hr", "rr", "sbp", "dbp", "temp", "spo2")),
}


@dataclass(frozen=True, slots=True)
class Study:
    """An imaging study; `plain` holds the sentences of an unremarkable picture."""

    code: str
    name: str
    system: str = "LN"
    plain: tuple[str, ...] = ()


CHEST = Study(
    "36643-5",
    "XR Chest 2 Views",
    plain=(
        "The lungs are clear.",
        "No pleural effusion or pneumothorax.",
        "The cardiomediastinal silhouette is within normal limits.",
        "No acute osseous abnormality.",
    ),
)
HEAD = Study(
    "24725-4",
    "CT Head",
    plain=(
        "No acute intracranial haemorrhage.",
        "Grey-white differentiation is preserved.",
        "Ventricles and sulci are appropriate for age.",
        "No skull fracture.",
    ),
)
ABDOMEN = Study(
    "44115-4",
    "CT Abdomen and Pelvis",
    plain=(
        "Liver, spleen & pancreas are unremarkable.",
        "No hydronephrosis or renal calculus.",
        "No free air or free fluid.",
        "The bowel is of normal calibre.",
    ),
)
HIP = Study(
    "XRHIP2",
    "XR Hip 2 Views",
    system="99RAD",
    plain=("No acute fracture or dislocation.", "Joint spaces are preserved.", "Soft tissues are unremarkable."),
)


@dataclass(frozen=True, slots=True)
class Condition:
    """Why somebody comes, and how it shows. `shift` moves analytes: name -> (mean, spread) in the analyte's unit."""

    code: str  # ICD-10-CM
    name: str
    complaint: str
    zh: str
    unit: str
    admitted: float  # probability of a bed upstairs
    intensive: float = 0.0  # probability that this bed is in the ICU
    weight: float = 1.0
    child: bool = False
    panels: tuple[str, ...] = ("CBC", "BMP")
    study: Study | None = None
    abnormal: tuple[str, ...] = ()
    story: tuple[str, ...] = ()
    exam: tuple[str, ...] = ()
    plan: tuple[str, ...] = ()
    shift: Mapping[str, tuple[float, float]] = field(default_factory=dict)


EMERGENCIES: tuple[Condition, ...] = (
    Condition(
        "R07.9",
        "Chest pain, unspecified",
        "chest pain",
        "胸痛",
        "CARD",
        0.25,
        weight=2.0,
        panels=("CBC", "BMP", "TROP"),
        study=CHEST,
        story=(
            "The pain is sharp, worse on deep inspiration and does not radiate.",
            "No diaphoresis, no syncope.",
            "Symptoms began while climbing stairs & settled with rest.",
        ),
        exam=("Chest wall tender on the left to palpation.", "Heart sounds normal, no murmur."),
        plan=("Serial troponin & repeat ECG in three hours.", "Discharge with outpatient stress test if negative."),
        shift={"trop": (7, 3)},
    ),
    Condition(
        "I21.4",
        "Non-ST elevation (NSTEMI) myocardial infarction",
        "crushing chest pain",
        "压榨性胸痛",
        "CARD",
        1.0,
        0.3,
        panels=("CBC", "BMP", "TROP"),
        study=CHEST,
        abnormal=("Mild pulmonary vascular congestion.",),
        story=(
            "Retrosternal pressure for two hours, radiating to the left arm and jaw.",
            "Associated nausea and sweating.",
            "Chest pain 8/10 on arrival, 3/10 after nitroglycerin.",
        ),
        exam=("Diaphoretic and pale.", "ECG: ST depression in V4-V6, no ST elevation."),
        plan=("Aspirin 300 mg, heparin infusion started.", "Cardiology informed; coronary angiography in the morning."),
        shift={"trop": (420, 200), "hr": (96, 12), "glu": (150, 35)},
    ),
    Condition(
        "J18.9",
        "Pneumonia, unspecified organism",
        "cough and fever",
        "咳嗽发热",
        "MED",
        0.7,
        0.08,
        weight=1.6,
        panels=("CBC", "BMP", "LAC"),
        study=CHEST,
        abnormal=("Right lower lobe consolidation, consistent with pneumonia.", "Small right parapneumonic effusion."),
        story=(
            "Productive cough with green sputum for four days.",
            "Fever to 39 at home, rigors last night.",
            "Pleuritic chest discomfort on the right.",
        ),
        exam=("Coarse crackles at the right base with bronchial breathing.", "Dull to percussion on the right."),
        plan=("Ceftriaxone & azithromycin given in the ED.", "Blood cultures drawn before antibiotics."),
        shift={"wbc": (16, 3), "temp": (38.7, 0.5), "rr": (24, 3), "spo2": (91, 2), "hr": (104, 10), "lac": (1.8, 0.5)},
    ),
    Condition(
        "A41.9",
        "Sepsis, unspecified organism",
        "confusion and fever",
        "发热意识模糊",
        "MED",
        1.0,
        0.7,
        panels=("CBC", "BMP", "LAC", "ABG"),
        study=CHEST,
        abnormal=("Patchy bibasal opacities, infection not excluded.",),
        story=(
            "Brought in by ambulance, drowsy since the morning.",
            "Poor oral intake for three days & rigors.",
            "Sepsis alert raised at triage.",
        ),
        exam=("Warm peripheries, capillary refill 4 seconds.", "Hypotensive despite one litre of crystalloid."),
        plan=(
            "Sepsis bundle started: cultures, broad-spectrum antibiotics, 30 mL/kg fluid.",
            "Noradrenaline if MAP <65 after fluids.",
        ),
        shift={
            "wbc": (21, 5),
            "lac": (4.4, 1.4),
            "temp": (38.9, 0.7),
            "hr": (122, 12),
            "sbp": (86, 9),
            "dbp": (48, 7),
            "rr": (28, 4),
            "creat": (2.2, 0.7),
            "plt": (120, 40),
            "hco3": (16, 3),
            "pco2": (30, 4),
            "co2": (17, 3),
            "spo2": (92, 3),
        },
    ),
    Condition(
        "J44.1",
        "Chronic obstructive pulmonary disease with (acute) exacerbation",
        "shortness of breath",
        "气促",
        "MED",
        0.6,
        0.12,
        weight=1.3,
        panels=("CBC", "BMP", "ABG"),
        study=CHEST,
        abnormal=("Hyperinflated lungs with flattened diaphragms.", "No focal consolidation."),
        story=(
            "Increasing shortness of breath over 2 days with more sputum.",
            "Uses home oxygen at night.",
            "Could not finish a sentence on arrival.",
        ),
        exam=("Diffuse expiratory wheeze, prolonged expiration.", "Using accessory muscles."),
        plan=("Nebulised salbutamol/ipratropium, prednisone 40 mg.", "Non-invasive ventilation if pH <7.30."),
        shift={"pco2": (56, 7), "hco3": (27.5, 2), "po2": (60, 8), "spo2": (88, 3), "rr": (26, 3), "hr": (102, 9)},
    ),
    Condition(
        "I50.9",
        "Heart failure, unspecified",
        "shortness of breath",
        "呼吸困难",
        "CARD",
        0.75,
        0.1,
        weight=1.1,
        panels=("CBC", "BMP", "TROP"),
        study=CHEST,
        abnormal=("Cardiomegaly with bilateral pleural effusions.", "Interstitial oedema with septal lines."),
        story=(
            "Shortness of breath when lying flat, sleeps on three pillows.",
            "Ankle swelling & 5 kg weight gain in a week.",
            "Ran out of furosemide last Tuesday.",
        ),
        exam=("Raised jugular venous pressure.", "Pitting oedema to the knees; bibasal crackles."),
        plan=("Furosemide 80 mg IV, strict fluid balance.", "Echocardiogram requested."),
        shift={"trop": (34, 12), "spo2": (91, 2), "rr": (24, 3), "na": (132, 3), "creat": (1.6, 0.4), "bun": (34, 9)},
    ),
    Condition(
        "S72.001A",
        "Fracture of unspecified part of neck of right femur, initial encounter for closed fracture",
        "fall with hip pain",
        "跌倒髋部疼痛",
        "SUR",
        0.97,
        0.03,
        panels=("CBC", "BMP"),
        study=HIP,
        abnormal=("Displaced fracture of the right femoral neck.",),
        story=(
            "Mechanical fall from standing at home, no loss of consciousness.",
            "Unable to bear weight since the fall.",
            "Was on the floor for about ~2 hours.",
        ),
        exam=("Right leg shortened and externally rotated.", "Distal pulses & sensation intact."),
        plan=("Fascia iliaca block; orthopaedics to operate tomorrow.", "Falls assessment and bone protection."),
        shift={"hgb": (11.2, 1.2), "hr": (92, 9)},
    ),
    Condition(
        "S09.90XA",
        "Unspecified injury of head, initial encounter",
        "fall with head injury",
        "跌倒头部外伤",
        "MED",
        0.2,
        weight=1.5,
        panels=("CBC", "BMP"),
        study=HEAD,
        abnormal=("Small left parietal scalp haematoma.",),
        story=(
            "Slipped in the bathroom and struck the head on the basin.",
            "No vomiting; amnesia for the fall itself.",
            "Takes apixaban for atrial fibrillation.",
        ),
        exam=("GCS 15, pupils equal & reactive.", "3 cm laceration over the left parietal scalp, sutured."),
        plan=("CT head and neurological observations for six hours.", "Head injury advice given to the family."),
        shift={"sbp": (146, 14)},
    ),
    Condition(
        "I63.9",
        "Cerebral infarction, unspecified",
        "sudden weakness and slurred speech",
        "突发肢体无力言语不清",
        "MED",
        1.0,
        0.25,
        panels=("CBC", "BMP", "POC"),
        study=HEAD,
        abnormal=("Early loss of the insular ribbon on the left.", "Hyperdense left middle cerebral artery sign."),
        story=("Last seen well at breakfast; found with right-sided weakness.", "Stroke team met the ambulance."),
        exam=("NIHSS 9: right facial droop, right arm drift, dysarthria.", "Irregularly irregular pulse."),
        plan=("Thrombolysis discussed; outside the window.", "Swallow screen before oral intake."),
        shift={"sbp": (172, 16), "dbp": (94, 9), "poc": (138, 30)},
    ),
    Condition(
        "K35.80",
        "Unspecified acute appendicitis",
        "abdominal pain",
        "右下腹痛",
        "SUR",
        0.95,
        panels=("CBC", "BMP"),
        study=ABDOMEN,
        abnormal=("Dilated appendix of 11 mm with peri-appendiceal fat stranding.", "No perforation or abscess."),
        story=("Pain began around the navel and moved to the right lower quadrant.", "Nausea, one vomit, no appetite."),
        exam=("Rebound tenderness at McBurney's point.", "Rovsing's sign positive."),
        plan=("Nil by mouth; laparoscopic appendicectomy today.", "Cefuroxime & metronidazole."),
        shift={"wbc": (15, 2.5), "temp": (38.0, 0.4), "hr": (98, 9)},
    ),
    Condition(
        "R10.9",
        "Unspecified abdominal pain",
        "abdominal pain",
        "腹痛",
        "SUR",
        0.15,
        weight=1.5,
        panels=("CBC", "BMP"),
        study=ABDOMEN,
        story=(
            "Crampy pain for one day, bowels open normally.",
            "No urinary symptoms, no fever.",
            "Similar episode last year settled without treatment.",
        ),
        exam=("Abdomen soft, mild epigastric tenderness.", "No guarding, bowel sounds present."),
        plan=("Analgesia and oral fluids; return if pain worsens or fever.",),
    ),
    Condition(
        "E10.10",
        "Type 1 diabetes mellitus with ketoacidosis without coma",
        "vomiting and thirst",
        "呕吐口渴",
        "MED",
        1.0,
        0.5,
        weight=0.6,
        panels=("BMP", "ABG", "LAC", "POC"),
        story=(
            "Missed insulin for three days during a stomach upset.",
            "Polyuria, thirst and vomiting since yesterday.",
        ),
        exam=("Kussmaul breathing, breath smells of ketones.", "Dry mucous membranes."),
        plan=("Fixed-rate insulin infusion with potassium replacement.", "Hourly glucose & two-hourly blood gas."),
        shift={
            "glu": (480, 90),
            "poc": (470, 90),
            "hco3": (9, 3),
            "pco2": (24, 4),
            "co2": (10, 3),
            "k": (5.4, 0.5),
            "na": (131, 3),
            "hr": (116, 10),
            "rr": (28, 3),
            "lac": (2.4, 0.6),
        },
    ),
    Condition(
        "N39.0",
        "Urinary tract infection, site not specified",
        "dysuria",
        "尿痛尿频",
        "MED",
        0.25,
        weight=1.2,
        panels=("CBC", "BMP"),
        story=(
            "Burning on passing urine and frequency for two days.",
            "No loin pain, no vaginal bleeding or discharge.",
        ),
        exam=("Suprapubic tenderness only.", "No renal angle tenderness."),
        plan=("Nitrofurantoin for five days after urine culture.",),
        shift={"wbc": (12, 2), "temp": (37.9, 0.4)},
    ),
    Condition(
        "J45.901",
        "Unspecified asthma with (acute) exacerbation",
        "wheeze and shortness of breath",
        "喘息气促",
        "PED",
        0.45,
        weight=1.2,
        child=True,
        panels=("CBC",),
        study=CHEST,
        story=(
            "Wheeze since a cold two days ago; needed the blue inhaler every 2 hours.",
            "Playing & eating less than usual.",
        ),
        exam=("Subcostal recession, widespread wheeze.", "Talks in short phrases."),
        plan=("Salbutamol via spacer 3 times in the first hour; oral dexamethasone.",),
        shift={"rr": (38, 5), "spo2": (92, 2), "hr": (138, 12)},
    ),
    Condition(
        "A08.4",
        "Viral intestinal infection, unspecified",
        "vomiting and diarrhoea",
        "呕吐腹泻",
        "PED",
        0.3,
        weight=1.1,
        child=True,
        panels=("BMP",),
        story=("Vomited six times since last night, loose stools.", "Two wet nappies or toilet visits today."),
        exam=("Mildly dehydrated, abdomen soft.", "Tears present, capillary refill 2 seconds."),
        plan=("Ondansetron & oral rehydration challenge.",),
        shift={"bun": (19, 4), "co2": (19, 2), "temp": (37.8, 0.5)},
    ),
)

ELECTIVES: tuple[Condition, ...] = (
    Condition(
        "M16.11",
        "Unilateral primary osteoarthritis, right hip",
        "planned hip replacement",
        "髋关节置换术",
        "SUR",
        1.0,
        0.03,
        weight=2.0,
        study=HIP,
        abnormal=("Severe joint space narrowing with osteophytes.",),
        story=("Right hip pain limits walking to 100 m.", "Conservative treatment exhausted."),
        exam=("Antalgic gait, internal rotation 5 degrees.",),
        plan=("Total hip arthroplasty; mobilise on day one.",),
        shift={"hgb": (10.9, 1.0)},
    ),
    Condition(
        "I25.10",
        "Atherosclerotic heart disease of native coronary artery without angina pectoris",
        "planned coronary bypass",
        "冠状动脉搭桥术",
        "CARD",
        1.0,
        0.9,
        study=CHEST,
        panels=("CBC", "BMP", "TROP"),
        abnormal=("Median sternotomy wires; small left effusion.",),
        story=("Three-vessel disease on angiography last month.", "Exertional chest pain, none at rest."),
        exam=("Lungs clear, no peripheral oedema.",),
        plan=("Coronary artery bypass grafting, ICU afterwards.",),
        shift={"trop": (180, 70), "hgb": (10.2, 0.9), "hr": (88, 9)},
    ),
    Condition(
        "K80.20",
        "Calculus of gallbladder without cholecystitis without obstruction",
        "planned gallbladder removal",
        "胆囊切除术",
        "SUR",
        1.0,
        weight=1.6,
        story=("Recurrent right upper quadrant pain after meals.", "Ultrasound shows gallstones."),
        exam=("Abdomen soft, Murphy's sign negative.",),
        plan=("Laparoscopic cholecystectomy; home next day.",),
    ),
)

CLINICS: tuple[Condition, ...] = (
    Condition(
        "I10",
        "Essential (primary) hypertension",
        "blood pressure review",
        "高血压复诊",
        "CLIN",
        0.0,
        panels=("BMP",),
        story=("Home readings around 150/90.", "Takes lisinopril most days."),
        exam=("No oedema, fundi normal.",),
        plan=("Amlodipine added; review in six weeks.",),
        shift={"sbp": (154, 10), "dbp": (92, 6)},
    ),
    Condition(
        "E11.9",
        "Type 2 diabetes mellitus without complications",
        "diabetes review",
        "糖尿病复诊",
        "CLIN",
        0.0,
        panels=("BMP", "CBC"),
        story=("Checks glucose twice a week.", "No hypoglycaemia."),
        exam=("Foot pulses & sensation intact.",),
        plan=("Metformin increased; eye screening booked.",),
        shift={"glu": (168, 32)},
    ),
    Condition(
        "Z09",
        "Encounter for follow-up examination after completed treatment",
        "follow-up",
        "出院随访",
        "CLIN",
        0.0,
        panels=("CBC",),
        story=("Recovering well since discharge.", "Wound dry, no fever."),
        exam=("Wound healed.",),
        plan=("No further appointments needed.",),
    ),
)


def measure(rng: Random, panel: Panel, condition: Condition, severity: float, child: bool) -> list[tuple[Analyte, str]]:
    """Values of one panel as printed, agreeing with the illness and with each other.

    `severity` 1 is the worst of the stay and 0 is well again. Haematocrit and red cells follow from haemoglobin and
    MCV, pH from carbon dioxide and bicarbonate (Henderson-Hasselbalch), and no diastolic pressure passes the systolic.
    """
    found: dict[str, float] = {}
    for name in panel.analytes:
        analyte = _analyte(name, child)
        middle, spread = (analyte.low + analyte.high) / 2, (analyte.high - analyte.low) / 5.5
        if name in condition.shift:
            mean, width = condition.shift[name]
            middle += (mean - middle) * severity
            spread += (width - spread) * severity
        found[name] = min(analyte.ceiling, max(analyte.floor, rng.gauss(middle, spread)))
    if "hct" in found:
        found["hct"] = found["hgb"] * 3.0
        found["rbc"] = found["hct"] * 10.0 / found["mcv"]
    if "ph" in found:
        ph = 6.1 + math.log10(found["hco3"] / (0.0307 * found["pco2"]))
        found["ph"] = min(7.8, max(6.8, ph))
    if "dbp" in found:
        found["dbp"] = max(25.0, min(found["dbp"], found["sbp"] - 20.0))
    return [(analyte, analyte.text(value)) for name, value in found.items() for analyte in (_analyte(name, child),)]


def _analyte(name: str, child: bool) -> Analyte:
    return (CHILD.get(name) if child else None) or ANALYTES[name]


_OPENINGS = (
    "{age}-year-old {noun} presents with {complaint}.",
    "{age}-year-old {noun} brought to the department with {complaint}.",
    "Seen in the department: {noun}, {age} years, {complaint}.",
)
_PERSONAL = (
    "{name} (MRN {mrn}) can be reached on {phone}.",
    "Identity checked: {name}, MRN {mrn}.",
    "Results to be given to {name} by phone, {phone}.",
    "{name} agrees with the plan & asks to be called on {phone}.",
)
_PERSONAL_ZH = (
    "患者{name}，病历号{mrn}，联系电话{phone}。",
    "已核对身份：{name}，病历号{mrn}。",
    "结果将电话通知{name}（{phone}）。",
)
_HABITS = (
    "Never smoked.", "Ex-smoker, 20 pack-years.", "Lives alone on the second floor.", "No known drug allergies.",
    "Allergic to penicillin (rash).", "Takes aspirin & atorvastatin.", "Drinks alcohol only at weekends.",
)  # fmt: skip
_DAILY = (
    "Slept well, pain controlled.", "Eating & drinking.", "Mobilised with one assistant.", "Afebrile overnight.",
    "Observations stable on the ward.", "Bowels open.", "Drain output 40 mL/24 h.", "Oxygen weaned to 1 L/min.",
)  # fmt: skip
_LEAVING = (
    "Discharged home in good condition.", "Discharged with a summary to the family doctor.",
    "Return to the ED if symptoms come back.", "Follow-up in clinic in two weeks.",
)  # fmt: skip
_ZH = {
    "first": "{age}岁{noun}，因{complaint}来诊。生命体征已记录，完善相关检查。",
    "daily": "患者一般情况可，{complaint}较前好转，继续目前治疗。",
    "leave": "患者因{complaint}入院，经治疗好转，今日出院，门诊随访。",
}


@dataclass(frozen=True, slots=True)
class Who:
    """How one system writes the patient's own words in a note."""

    name: str
    mrn: str
    phone: str
    age: int
    sex: str


def note(rng: Random, kind: str, condition: Condition, who: Who, chinese: bool) -> list[str]:
    """Lines of a clinical note. `kind`: first (assessment), daily (progress) or leave (discharge summary).

    Two in five name the patient in the text, as real notes do: what the text hides must be found by its words.
    """
    personal = rng.random() < 0.4
    if chinese:
        noun = "女性" if who.sex == "F" else "男性"
        lines = [_ZH[kind].format(age=who.age, noun=noun, complaint=condition.zh)]
        if personal:
            lines.append(rng.choice(_PERSONAL_ZH).format(name=who.name, mrn=who.mrn, phone=who.phone))
        return [*lines, f"Diagnosis: {condition.name}."]
    noun = ("girl" if who.sex == "F" else "boy") if who.age < 16 else ("woman" if who.sex == "F" else "man")
    if kind == "first":
        lines = [rng.choice(_OPENINGS).format(age=who.age, noun=noun, complaint=condition.complaint)]
        lines += rng.sample(condition.story, min(len(condition.story), 2))
        lines += rng.sample(_HABITS, 2)
        lines += [
            f"Exam: {' '.join(condition.exam)}",
            f"Impression: {condition.name}.",
            f"Plan: {' '.join(condition.plan)}",
        ]
    elif kind == "daily":
        lines = [
            f"Progress note, {condition.complaint}.",
            *rng.sample(_DAILY, 3),
            f"Plan: {rng.choice(condition.plan)}",
        ]
    else:
        lines = [
            f"Discharge summary. Diagnosis: {condition.name}.",
            rng.choice(condition.story),
            *rng.sample(_LEAVING, 2),
        ]
    if personal:
        lines.insert(
            rng.randint(1, len(lines)), rng.choice(_PERSONAL).format(name=who.name, mrn=who.mrn, phone=who.phone)
        )
    return lines


def read_picture(rng: Random, study: Study, condition: Condition, who: Who, chinese: bool) -> list[str]:
    """Lines of a radiology report: history, findings, impression."""
    abnormal = condition.abnormal if rng.random() < 0.85 else ()
    plain = rng.sample(study.plain[1:] if abnormal else study.plain, 2)
    lines = [
        f"HISTORY: {condition.zh if chinese else condition.complaint}.",
        f"TECHNIQUE: {study.name}.",
        f"FINDINGS: {' '.join((*abnormal, *plain))}",
    ]
    lines.append(f"IMPRESSION: {abnormal[0] if abnormal else 'No acute abnormality.'}")
    if rng.random() < 0.25:
        lines.append(f"Reported for {who.name}, MRN {who.mrn}.")
    return lines
