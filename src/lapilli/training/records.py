"""Registry records of trials that nobody ran: title, condition, arms and summary, and the interventions in them.

Names of drugs are stems of WHO's list of International Nonproprietary Names after invented syllables; devices,
procedures, behavioural programmes, supplements and tests are put together from words. A name is asked for as it stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lapilli.training.invented import listed, pick

_STEMS = listed(
    "mab umab zumab ximab tinib ciclib parib rafenib metinib vir navir tegravir buvir prazole sartan pril olol dipine "
    "statin gliptin gliflozin glutide azole conazole cillin mycin floxacin cycline cef oxetine azepam zolam idone "
    "piprazole triptan setron caine profen coxib sone lukast terol tropium platin taxel rubicin tecan bicin stim kinra "
    "cept parin xaban gatran grel afil amide ine ate ol ium"
)
_HEADS = listed(
    "a al ar be bi ca ce cla da de di do e el en fa fe flu ga gi glo he i im ka ke la le li lo lu ma me mi mo na ne ni "
    "no o ol pa pe pi po ra re ri ro ru sa se si so su ta te ti to tra u va ve vi vo za ze zi zo"
)
_KNOWN = listed(
    "aspirin ibuprofen paracetamol metformin insulin glargine dexamethasone prednisone hydroxychloroquine azithromycin "
    "remdesivir tocilizumab rituximab bevacizumab cisplatin carboplatin paclitaxel docetaxel gemcitabine ketamine "
    "propofol lidocaine bupivacaine morphine fentanyl heparin warfarin amoxicillin doxycycline fluconazole omeprazole "
    "atorvastatin losartan amlodipine sildenafil melatonin levothyroxine methotrexate tacrolimus lenalidomide "
    "cyclophosphamide doxorubicin vincristine oxytocin misoprostol tranexamic_acid vitamin_D zinc ivermectin"
)
_SALTS = ("hydrochloride", "sodium", "acetate", "sulfate", "mesylate", "phosphate", "tartrate")
_FORMS = ("tablets", "capsules", "injection", "cream", "eye drops", "nasal spray", "oral solution", "gel", "patch")
_CONDITIONS = listed(
    "asthma;type 2 diabetes mellitus;breast cancer;COVID-19;hypertension;major depressive disorder;knee osteoarthritis;"
    "Crohn's disease;psoriasis;non-small cell lung cancer;chronic heart failure;migraine;Parkinson's disease;"
    "rheumatoid arthritis;HIV infection;hepatitis C;malaria;tuberculosis;obesity;schizophrenia;postoperative pain;"
    "multiple myeloma;prostate cancer;acute myeloid leukemia;cystic fibrosis;glaucoma;atrial fibrillation;stroke;"
    "epilepsy;periodontitis;low back pain;sepsis;preterm birth;anemia;insomnia;autism spectrum disorder;PTSD;"
    "ovarian cancer;age-related macular degeneration;chronic kidney disease;atopic dermatitis;influenza;dry eye;"
    "alcohol use disorder;smoking cessation;irritable bowel syndrome;endometriosis;ulcerative colitis;"
    "pancreatic cancer",
    ";",
)
_PEOPLE = ("patients", "adults", "children", "subjects", "participants", "women", "older adults", "adolescents")
_ADJECTIVES = listed(
    "Online;Guided;Mindfulness-based;Home-based;Nurse-led;Cognitive;Motivational;Peer-led;Brief;Intensive;"
    "Web-based;Group;Structured;Family-centered;School-based;Mobile",
    ";",
)
_PROGRAMMES = listed(
    "behavioral therapy;education program;exercise training;stress reduction;interviewing;counseling;support group;"
    "coaching;self-management program;skills training;reminders;rehabilitation;problem-solving intervention;yoga;"
    "physical therapy;telephone follow-up;diary;interview",
    ";",
)
_DEVICE_HEADS = listed(
    "transcranial magnetic;continuous glucose;high-flow nasal;negative pressure wound;drug-eluting;bone-anchored;"
    "implantable cardiac;transcutaneous nerve;low-level laser;virtual reality;wearable activity;compression;"
    "intermittent pneumatic;hearing;dental;smart",
    ";",
)
_DEVICES = listed(
    "stimulation;monitor;cannula;dressing;stent;implant;defibrillator;stimulator;headset;tracker;stockings;pump;"
    "catheter;splint;mask;lens;mattress;brace;ventilator",
    ";",
)
_PROCEDURE_HEADS = listed(
    "laparoscopic;open;robotic;percutaneous;endoscopic;ultrasound-guided;arthroscopic;early;delayed;minimally invasive;"
    "conventional;radical;subcutaneous;spinal",
    ";",
)
_PROCEDURES = listed(
    "cholecystectomy;hernia repair;nerve block;biopsy;appendectomy;bone graft;tooth extraction;lymph node dissection;"
    "cesarean section;embolization;angioplasty;mobilization;anesthesia;hysterectomy;suture;gingival graft;acupuncture",
    ";",
)
_SUPPLEMENTS = listed(
    "vitamin C;vitamin D3;omega-3 fatty acids;fish oil;zinc sulfate;iron;folic acid;probiotics;curcumin;"
    "green tea extract;whey protein;high fiber diet;ketogenic diet;low-sodium diet;honey;"
    "Lactobacillus rhamnosus;magnesium;soy protein",
    ";",
)
_TESTS = listed(
    "PCR test;rapid antigen test;blood sampling;MRI;computed tomography;questionnaire;serology;biomarker analysis;"
    "spirometry;echocardiography;antibody test;stool test;sleep study;eye examination;survey;chest X-ray;biopsy",
    ";",
)
_RADIATIONS = listed(
    "radiation therapy;stereotactic body radiotherapy;brachytherapy;whole brain irradiation;proton therapy;"
    "hypofractionated radiotherapy;intensity-modulated radiation therapy;low-dose irradiation",
    ";",
)
_OTHERS = listed(
    "standard of care;usual care;observation;follow-up;data collection;quality-of-life assessment;no intervention;"
    "standard treatment;laboratory biomarker analysis;waiting list;music;massage;telemedicine",
    ";",
)
_ROUTES = listed(
    "orally;intravenously;subcutaneously;intramuscularly;by inhalation;topically;by mouth;sublingually;intranasally;"
    "by intravenous infusion;by subcutaneous injection",
    ";",
)
_FREQUENCIES = listed(
    "once daily;twice daily;three times a day;every 8 hours;once a week;every 3 weeks;every other day;daily;weekly;"
    "twice a week;every 12 hours;b.i.d.;t.i.d.;monthly",
    ";",
)
_UNITS = ("mg", "mg", "mg", "mg/kg", "µg", "g", "IU", "ml", "mg/m2", "mcg")


@dataclass(frozen=True)
class Given:
    """One intervention as a record tells it: name, type, role, and what is told of how it is given."""

    name: str
    type: str
    role: str = "experimental"
    slots: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, str]:
        """In the order in which it is written."""
        return {"name": self.name, "type": self.type, "role": self.role, **self.slots}


@dataclass(frozen=True)
class MadeRecord:
    """Texts of a record under their names, and its interventions in the order in which they come up."""

    fields: Mapping[str, str]
    interventions: tuple[Given, ...]


def made_record(rng: np.random.Generator) -> MadeRecord:
    """One record: of a drug against something, several drugs together, something else than a drug, or a mere survey."""
    chance = rng.random()
    if chance < 0.55:
        return _of_drugs(rng)
    return _of_others(rng) if chance < 0.88 else _of_watching(rng)


def drug(rng: np.random.Generator) -> str:
    """A name like a drug's: known, invented with a stem, or a firm's code."""
    chance = rng.random()
    if chance < 0.15:
        name = pick(rng, _KNOWN).replace("_", " ")
    elif chance < 0.3:
        letters = "".join(chr(65 + int(i)) for i in rng.integers(26, size=int(rng.integers(2, 4))))
        return f"{letters}{pick(rng, ('-', '-', '', ' '))}{int(rng.integers(10, 9999))}"
    else:
        name = "".join(pick(rng, _HEADS) for _ in range(int(rng.integers(1, 4)))) + pick(rng, _STEMS)
    if rng.random() < 0.4:
        name = name[:1].upper() + name[1:]
    if rng.random() < 0.08:
        name = f"{name} {pick(rng, _SALTS)}"
    elif rng.random() < 0.08:
        name = f"{name} {pick(rng, _FORMS)}"
    return name


def _dose(rng: np.random.Generator) -> str:
    number = pick(rng, (1, 2, 5, 10, 15, 20, 25, 30, 40, 50, 60, 75, 80, 100, 120, 150, 200, 250, 300, 400, 500, 800))
    return f"{number} {pick(rng, _UNITS)}"


def _other(rng: np.random.Generator) -> tuple[str, str]:
    """Something that is no drug: its name and its type."""
    kind = int(rng.choice(7, p=[0.26, 0.16, 0.2, 0.12, 0.1, 0.08, 0.08]))
    if kind == 0:
        name, type_ = f"{pick(rng, _ADJECTIVES)} {pick(rng, _PROGRAMMES)}", "Behavioral"
    elif kind == 1:
        name, type_ = f"{pick(rng, _DEVICE_HEADS)} {pick(rng, _DEVICES)}", "Device"
    elif kind == 2:
        name, type_ = f"{pick(rng, _PROCEDURE_HEADS)} {pick(rng, _PROCEDURES)}", "Procedure"
    elif kind == 3:
        name, type_ = pick(rng, _SUPPLEMENTS), "Dietary Supplement"
    elif kind == 4:
        name, type_ = f"{drug(rng).split()[0]} vaccine", "Biological"
    elif kind == 5:
        name, type_ = pick(rng, _RADIATIONS), "Radiation"
    else:
        name, type_ = pick(rng, _TESTS), "Diagnostic Test"
    return (name[:1].upper() + name[1:] if rng.random() < 0.4 else name), type_


def _drug_type(name: str) -> str:
    first = name.split()[0].lower()
    return "Biological" if first.endswith(("mab", "cept", "kinra", "vaccine")) else "Drug"


_WHY = (
    "The purpose of this study is to {do} {a} in {who} with {c}.",
    "This study will {do} {a} for the treatment of {c}.",
    "The aim of this trial is to {do} {a} compared with {b} in {who} with {c}.",
    "{c} is a common disease. {A} may help {who}. This trial will {do} {a}.",
    "RATIONALE: Drugs such as {a} work in different ways to stop the growth of cells. PURPOSE: This phase {p} trial is "
    "studying how well {a} works in treating {who} with {c}.",
    "This is a phase {p}, randomized, double-blind study of {a} versus {b} in {who} with {c}. "
    "About {n} {who} will take part.",
    "The investigators hypothesize that {a} is better than {b} in {who} with {c}.",
    "{n} {who} with {c} will be randomized to receive either {a} or {b}.",
    "To {do} {a} in {who} with {c} after {w} weeks.",
    "Despite progress in recent years, the treatment of {c} remains difficult. "
    "In a previous study {a} was well tolerated. The primary outcome is measured at {w} weeks.",
)
_ALONE = tuple(text for text in _WHY if "{b}" not in text)
_DOING = (
    "evaluate the safety and efficacy of", "assess the effect of", "determine whether there is a benefit of",
    "compare the efficacy of", "investigate the tolerability of", "evaluate", "examine the feasibility of",
)  # fmt: skip
_TITLES = (
    "{A} for {c}", "Efficacy and Safety of {a} in {Who} With {C}", "{A} Versus {b} in {Who} With {C}",
    "A Study of {a} in {Who} With {C}", "Effect of {a} on {c}", "{A} in Treating {Who} With {C}",
    "A Phase {p} Trial of {a} in {C}", "Comparison of {a} and {b} for {c}", "Use of {a} in {Who} With {C}",
)  # fmt: skip
_TITLES_ALONE = tuple(text for text in _TITLES if "{b}" not in text)
_BLIND = ("New Treatment for {c}", "Improving Outcomes in {C}", "Study of {Who} With {C}", "The {acronym} Study")
_LONG = (
    "A Randomized, Double-Blind Study to Evaluate the Efficacy and Safety of {a} in {Who} With {C}",
    "A Multicenter, Open-Label, Phase {p} Study of {a} in {Who} With {C}",
    "Randomized Controlled Trial of {a} in {who} with {c}",
    "A Phase {p}, Placebo-Controlled, Parallel-Group Study of {a} for the Treatment of {C}",
    "Effects of {a} in {Who} With {C}: A Pilot Study",
)
_ENDINGS = (
    "", "", "", " Secondary outcomes are adverse events and quality of life.",
    " Follow-up visits take place at {w} weeks and at {m} months.",
    " {Who} will be followed for {m} months.", " The study is conducted at {k} sites.",
    " Blood samples are taken at baseline.", " The primary endpoint is overall survival.",
    " Patients who do not wish to take part receive the usual treatment.",
)  # fmt: skip


def _filled(text: str, words: Mapping[str, str]) -> str:
    found = text.format(**words)
    return found[:1].upper() + found[1:]


def _words(rng: np.random.Generator, names: Sequence[str]) -> dict[str, str]:
    condition, who = pick(rng, _CONDITIONS), pick(rng, _PEOPLE)
    a = names[0]
    return {
        "a": a, "A": a[:1].upper() + a[1:], "b": names[-1], "c": condition, "C": condition[:1].upper() + condition[1:],
        "who": who, "Who": who.title(), "do": pick(rng, _DOING), "p": pick(rng, ("1", "2", "3", "4", "I", "II", "III")),
        "n": str(int(rng.integers(12, 900))), "w": str(int(rng.integers(2, 60))), "m": str(int(rng.integers(2, 36))),
        "k": str(int(rng.integers(2, 60))),
        "acronym": "".join(chr(65 + int(i)) for i in rng.integers(26, size=int(rng.integers(4, 7)))),
    }  # fmt: skip


def _record(
    rng: np.random.Generator, given: Sequence[Given], arms: Sequence[str], *, named: float = 0.85
) -> MadeRecord:
    """Title and summary about these interventions, whose arms are written already."""
    names = [one.name for one in given]
    words = _words(rng, names)
    two = len(names) > 1
    title = pick(rng, (_TITLES if two else _TITLES_ALONE) if rng.random() < named else _BLIND)
    fields = {"public_title": _filled(title, words), "conditions": words["C" if rng.random() < 0.7 else "c"]}
    if rng.random() < 0.65:
        fields["scientific_title"] = _filled(pick(rng, _LONG), words)
    if arms:
        fields["arms"] = "\n".join(arms)
    why = _filled(pick(rng, _WHY if two else _ALONE), words)
    fields["summary"] = why + _filled(pick(rng, _ENDINGS), words) if rng.random() < 0.9 else why
    text = " ".join(fields.values()).lower()
    kept = tuple(one for one in given if one.name.lower() in text)
    return MadeRecord(fields, kept)


def _arm(rng: np.random.Generator, name: str, *, told: bool) -> tuple[str, dict[str, str]]:
    """A line about what an arm gets, and what it tells of how."""
    if not told:
        text = pick(rng, ("{n}", "Participants will receive {n}.", "{n} group", "{N} arm", "Subjects assigned to {n}",
                          "Experimental: {n}", "Patients receive {n} for the duration of the study."))  # fmt: skip
        return text.format(n=name, N=name[:1].upper() + name[1:]), {}
    dose, route, often = _dose(rng), pick(rng, _ROUTES), pick(rng, _FREQUENCIES)
    long = f"{int(rng.integers(2, 53))} {pick(rng, ('weeks', 'days', 'months'))}"
    text, keys = pick(rng, (
        ("{n} {d} {r} {f} for {l}", "drfl"), ("{n} {d} {f}", "df"), ("Patients receive {n} {d} {r}.", "dr"),
        ("{n} {d}, {f} for {l}", "dfl"), ("{d} of {n} given {r} {f}", "drf"), ("{n}, {d}", "d"),
        ("Participants take {n} {f} for {l}.", "fl"), ("{n} administered {r} at a dose of {d}", "rd"),
    ))  # fmt: skip
    values = {"d": ("dose", dose), "r": ("route", route), "f": ("frequency", often), "l": ("duration", long)}
    slots = {values[key][0]: values[key][1] for key in "drfl" if key in keys}
    return text.format(n=name, d=dose, r=route, f=often, l=long), slots


def _of_drugs(rng: np.random.Generator) -> MadeRecord:
    chance = rng.random()
    names = [drug(rng)]
    if chance < 0.35:
        comparator = pick(rng, ("placebo", "Placebo", "placebo", "matching placebo", "Placebo tablet"))
        roles = ["experimental", "placebo"]
        names.append(comparator)
    elif chance < 0.6:
        names += [drug(rng) for _ in range(int(rng.integers(1, 3)))]
        roles = ["experimental"] + ["comparator"] * (len(names) - 1)
    elif chance < 0.75:
        names += [drug(rng) for _ in range(int(rng.integers(1, 3)))]
        roles = ["experimental"] * len(names)
    elif chance < 0.83:
        names.append(pick(rng, ("standard of care", "standard treatment", "usual care")))
        roles = ["experimental", "comparator"]
    else:
        roles = ["experimental"]
    names = list({name.lower(): name for name in names}.values())
    told = rng.random() < 0.4
    given, arms = [], []
    for name, role in zip(names, roles, strict=False):
        plain = role in ("placebo",) or name.startswith(("standard", "usual"))
        line, slots = _arm(rng, name, told=told and not plain)
        arms.append(line)
        type_ = "Other" if name.startswith(("standard", "usual")) else _drug_type(name)
        given.append(Given(name, type_, role, slots))
    if rng.random() < 0.12:  # no arms: what they would have told is not told
        arms, given = [], [Given(one.name, one.type, one.role) for one in given]
    return _record(rng, given, arms)


def _of_others(rng: np.random.Generator) -> MadeRecord:
    name, type_ = _other(rng)
    given = [Given(name, type_)]
    chance = rng.random()
    if chance < 0.35:
        control = pick(rng, _OTHERS[:2] + _OTHERS[7:8] + _OTHERS[9:10])
        given.append(Given(control, "Other", "comparator"))
    elif chance < 0.55:
        other, kind = _other(rng)
        if other.lower() != name.lower():
            given.append(Given(other, kind, "comparator"))
    elif chance < 0.65:
        given.append(Given(f"sham {name}", type_, "placebo"))
    arms = [_arm(rng, one.name, told=False)[0] for one in given]
    return _record(rng, given, arms if rng.random() < 0.85 else [], named=0.75)


def _of_watching(rng: np.random.Generator) -> MadeRecord:
    """A study that only looks: its intervention is a test, a survey, or none that the text names."""
    if rng.random() < 0.35:
        record = _record(rng, [Given("the course of the disease", "Other")], [], named=0.3)
        return MadeRecord(record.fields, ())
    name = pick(rng, _TESTS + _OTHERS[2:6])
    type_ = "Diagnostic Test" if name in _TESTS else "Other"
    lines = ("Patients with the disease undergo {n}.", "{n} at baseline", "Cohort with {n}")
    return _record(rng, [Given(name, type_)], [pick(rng, lines).format(n=name)], named=0.5)
