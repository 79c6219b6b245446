"""What names tell by themselves: the stems of substances' names, words for kinds of treatment, codes of new substances.

Stems are those of WHO's International Nonproprietary Names (https://www.who.int/teams/health-product-and-policy-standards/inn).
"""

from __future__ import annotations

import re

from lapilli.apps.trials.vocabulary import InterventionType, Role

_BIOLOGICAL_STEMS = "mab|cept|ermin|grastim|poetin|leukin|kinra|plase|feron|leucel|vec"
_DRUG_STEMS = (
    "tinib|ciclib|parib|rafenib|metinib|zomib|degib|sertib|lisib|tegravir|navir|buvir|asvir|previr|ciclovir|cyclovir|"
    "ivir|amivir|nivir|ravir|gliptin|gliflozin|glutide|natide|glitazone|glinide|formin|vastatin|sartan|"
    "april|opril|dipril|"
    "inopril|olol|alol|dipine|prazole|conazole|nidazole|bendazole|setron|triptan|lukast|azepam|zolam|azolam|zepine|"
    "profen|coxib|fenac|oxicam|dronate|dronic acid|platin|rubicin|taxel|poside|citabine|rabine|trexate|trexed|mustine|"
    "tecan|vincristine|blastine|stilbestrol|estradiol|gestrel|progesterone|gestone|sterone|prednisolone|methasone|"
    "asone|onide|cortisone|thiazide|semide|tidine|terol|tropium|phylline|fungin|cycline|floxacin|oxacin|penem|bactam|"
    "cillin|mycin|micin|thromycin|quine|parin|rudin|grel|xaban|gatran|relin|relix|tide|vaptan|fenacin|dopa|giline|"
    "oxetine|pramine|triptyline|faxine|azodone|peridol|peridone|tiapine|zapine|piprazole|lidone|curonium|caine|flurane|"
    "entanil|orphanol|orphine|codone|oxone|trexone|phenidate|fetamine|afil|osin|steride|amide|zolid|xanthate|trozole|"
    "olone|lisone|oxifene|lutamide|imod|imus|mexate|sulfone|sulfa|barbital|toin|racetam|bapentin|gabalin|"
    "triazole|vudine|fovir|"
    "tadine|rizine|caftor|siran|rsen|stim|oxaban|zumab"
)
_NO_SUBSTANCE = re.compile(
    "provide|include|combine|determine|medicine|routine|examine|baseline|decline|outcome|volume|consume|"
    "increase|guideline|machine|online|vaccine|discipline|adrenal|peptide|peptides|nucleotide|disease|"
    "decrease|release|please|cell|accept|concept|except|percept|intercept|recept|precept|reside|decide|"
    "outside|inside|beside|suicide|bromide|provided|april|poison|chronic|acid",
    re.IGNORECASE,
)
_KNOWN = (
    "placebo|aspirin|acetaminophen|paracetamol|ibuprofen|heparin|(?:biphasic )?insulin (?:aspart|"
    "glargine|detemir|lispro|degludec|glulisine)|insulin|warfarin|metformin|saline|normal saline|"
    "digoxin|lithium|ketamine|esketamine|propofol|dexmedetomidine|midazolam|magnesium sulfate|magnesium|"
    "melatonin|caffeine|"
    "nicotine|methadone|buprenorphine|naloxone|naltrexone|cannabidiol|psilocybin|botulinum toxin|botox|"
    "oxytocin|misoprostol|"
    "mifepristone|letrozole|tamoxifen|clomiphene citrate|clomiphene|methotrexate|cyclophosphamide|fluorouracil|5-fu|"
    "capecitabine|leucovorin|bleomycin|temozolomide|thalidomide|lenalidomide|pomalidomide|bortezomib|"
    "prednisone|budesonide|"
    "mesalamine|colchicine|allopurinol|febuxostat|ivermectin|artesunate|artemether|primaquine|"
    "chloroquine|hydroxychloroquine|"
    "remdesivir|favipiravir|lopinavir/ritonavir|lopinavir|ritonavir|oseltamivir|arbidol|umifenovir|"
    "interferon (?:alfa|alpha|beta|gamma)(?:-?\\d[ab])?|interferon|"
    "ribavirin|zidovudine|tenofovir|emtricitabine|efavirenz|nevirapine|raltegravir|convalescent plasma|plasma|albumin|"
    "immunoglobulin|intravenous immunoglobulin|ivig|bcg|bcg vaccine|vitamin [a-k]\\d{0,2}|zinc|iron|"
    "folic acid|omega-3|fish oil|"
    "probiotics?|selenium|calcium|oxygen|nitric oxide|tranexamic acid|epinephrine|norepinephrine|vasopressin|dopamine|"
    "testosterone|estrogen|growth hormone|levothyroxine|chlorhexidine|povidone-iodine|hyaluronic acid|zoledronic acid|"
    "valproate|valproic acid|lamotrigine|carbamazepine|phenytoin|levetiracetam|gabapentin|pregabalin|topiramate|"
    "atropine|neostigmine|sugammadex|fentanyl|sufentanil|remifentanil|morphine|oxycodone|tramadol|dexamethasone|"
    "methylprednisolone|hydrocortisone|tocilizumab|sarilumab|anakinra|azithromycin|doxycycline|amoxicillin|vancomycin|"
    "mesenchymal stem cells?|umbilical cord mesenchymal stem cells|lianhua qingwen|xuebijing|"
    "traditional chinese medicine"
)
_STEMMED = re.compile(rf"(?<![\w-])(?:peg-?)?[a-z]{{2,24}}(?:{_BIOLOGICAL_STEMS}|{_DRUG_STEMS})(?![\w])", re.IGNORECASE)
_BIOLOGICAL = re.compile(rf"[a-z]{{2,24}}(?:{_BIOLOGICAL_STEMS})(?!\w)", re.IGNORECASE)
_COMMON = re.compile(rf"(?<![\w-])(?:{_KNOWN})(?![\w])", re.IGNORECASE)
_CODE = re.compile(
    r"(?<![\w-])(?!(?:COVID|SARS|NCT|NSC|CD|IL|HER|PD|COV|CoV|ICD|SF|EQ|HPV|HIV|H1N1|PHQ|CT|QLQ|BMI|GLP|"
    r"CYP|TNF|VEGF|IND|"
    r"Phase|Type|Week|Day|Grade|Stage|Arm|Part|Covid|Step|Year|Group|Cohort)(?:\b|[-\d]))"
    r"(?:[A-Z][A-Za-z]{1,4}-?[A-Z]?\d{3,7}[A-Z]?|[A-Z]{2,4}-[A-Z]\d{1,2})(?![\w-])"
)
_VACCINE = re.compile(
    r"(?<![\w-])(?:(?:mRNA|inactivated|recombinant|live|attenuated|conjugate|[A-Z][\w-]{2,20}) ){0,4}"
    r"(?:vaccines?|Vaccines?)(?!\w)"
)

_WORDS: tuple[tuple[InterventionType, str], ...] = (
    (
        "Biological",
        r"vaccin|immunoglobulin|globulin|\bIVIG\b|interferon|plasma\b|antibod|stem cell|\bcells?\b|toxin|"
        r"antiserum|\bserum\b|transfusion|\bBCG\b|probiotic strain|cytokine",
    ),
    ("Radiation", r"radiation|radiotherap|brachytherap|irradiation|\bSBRT\b|\bIMRT\b|proton therapy|radiosurg"),
    (
        "Dietary Supplement",
        r"vitamin|supplement|probiotic|prebiotic|omega-3|fish oil|\bzinc\b|selenium|\bdiet\b|nutrition|"
        r"\bmilk\b|formula\b|honey|curcumin|\bfood\b|creatine|beverage",
    ),
    (
        "Diagnostic Test",
        r"\bPCR\b|\btest(?:s|ing)?\b|\bscan\b|\bMRI\b|imaging|ultraso|tomograph|\bassay|screening|"
        r"biomarker|swab|sampl|electrocardiogra|\bECG\b|\bEEG\b|diagnos|spirometr",
    ),
    (
        "Device",
        r"device|stent|catheter|\bmask\b|laser|stimulat|\bTMS\b|\btDCS\b|pump|implant|lens|ventilat|"
        r"\bCPAP\b|cannula|\bapp\b|prosthe|brace|splint|monitor|robot|electrode|helmet|valve|balloon|mesh|"
        r"suture|needle|system\b",
    ),
    (
        "Procedure",
        r"surg|ectom|plasty|oscop|otomy|transplant|resection|acupunct|intubat|biops|\bblock\b|anesthe|"
        r"anaesthe|\bECMO\b|extracorporeal|dialysis|procedure|puncture|drainage|ablation|technique|"
        r"massage|manipulat|coagulation|angioplast|insertion|bypass|embolization|insemination|graft",
    ),
    (
        "Behavioral",
        r"behavi|cognitive|counsel|educat|training|program|psycho|mindful|motivation|coaching|exercise|"
        r"yoga|\btherapy session|interview|self-manag|lifestyle|support group|intervention|meditation|"
        r"\bCBT\b|rehabilit|telehealth|text messag|incentive|workshop|curriculum|reminder",
    ),
    ("Genetic", r"\bgene\b|genetic|genom|sequencing"),
)
_KINDS = tuple((kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in _WORDS)
_OTHER = re.compile(
    r"questionnaire|survey|standard (?:of )?care|usual care|standard treatment|observation|"
    r"no (?:intervention|treatment)|data collection|registry|care as usual|conventional",
    re.IGNORECASE,
)
_PLACEBO = re.compile(r"placebo|\bsham\b|安慰剂|\bvehicle\b|\bdummy\b", re.IGNORECASE)
_CONTROL = re.compile(r"control|comparat|conventional|standard|usual|routine|对照|常规", re.IGNORECASE)
_EXPERIMENTAL = re.compile(
    r"experiment|intervention|treatment|treated|\btest\b|study group|trial group|observation group|active|"
    r"试验|治疗|观察组|case series|single arm",
    re.IGNORECASE,
)


def find_substances(text: str) -> list[tuple[int, int]]:
    """Where names of substances stand, by their stems, as common ones, or as codes; in order, none in another."""
    spans = [hit.span() for hit in _COMMON.finditer(text)]
    spans += [hit.span() for hit in _STEMMED.finditer(text) if not _NO_SUBSTANCE.fullmatch(hit[0])]
    spans += [hit.span() for hit in _CODE.finditer(text)]
    spans += [hit.span() for hit in _VACCINE.finditer(text) if " " in hit[0]]
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
        if not found or start >= found[-1][1]:
            found.append((start, end))
    return found


def is_code(name: str) -> bool:
    """Whether it is a laboratory's code, as substances have before they have a name."""
    return _CODE.fullmatch(name.strip()) is not None


def is_placebo(name: str) -> bool:
    """Whether it only looks like a treatment."""
    return _PLACEBO.search(name) is not None


def type_hint(name: str) -> InterventionType | None:
    """The kind of intervention that a name tells of; None where it tells nothing."""
    if _OTHER.search(name):
        return "Other"
    substances = find_substances(name)
    if substances and _BIOLOGICAL.search(name):
        return "Biological"
    for kind, pattern in _KINDS:
        if pattern.search(name) and not (
            substances and kind in ("Device", "Procedure", "Behavioral", "Diagnostic Test")
        ):
            return kind
    return "Drug" if substances or is_placebo(name) else None


def role_hint(label: str) -> Role | None:
    """The role that a group's name gives to what it gets; None where it tells nothing."""
    if _PLACEBO.search(label):
        return "placebo"
    if _CONTROL.search(label):
        return "comparator"
    return "experimental" if _EXPERIMENTAL.search(label) else None
