"""Interventions out of clinical trials, as an article wrote it, on lapilli: `python examples/extract_trials.py`.

The imports, the model and the folder are this machine's; the rest is the article's, `trials2DrugsList` apart: it is
called there and defined nowhere. The twelve trials of `xml-1.xml` were made up. The model is asked at the server that
OLLAMA_HOST names; where none is up that has it, it is opened here. The API that is typed, and the command that works
through millions, are in docs/trials.md.
"""

# ruff: noqa: E501, E402, I001
# fmt: off
import os

os.chdir(os.path.dirname(os.path.abspath(__file__)))

from lapilli.compat import ollama

def extractDrugs(prompt: str, model="mistral-openorca:latest"):
    SYS_PROMPT = (
        "Your task is to extract medical intervention names (drugs or therapies) from the details of a clinical trial. Each trial can have multiple interventions."
        "Give a json list of intevention names with the following information for each: name, type, is_new, conditions, list of trial ids, dosage & administration"
        "Separate the dosage & administration, keep intervention names concise, only including identifying information about the drug or therapy."
        "The response should have the following format:"
        '['
        '   {'
        '       "name": Intervention name,'
        '       "type": Biologic,'
        '       "is_new_drug": Yes (if its a new drug),'
        '       "conditions": ["condition1", "condition2"],'
        '       "dosage_administration": {'
        '           "dosage": "0.02%",'
        '           "administration": "topical, 4 times a day for 12 weeks"'
        '       }'
        "   },"
        "   {"
        '       "name": Intervention name 2,'
        '       "type": Small molecule'
        '       "is_new_drug": No (if its a generic, biosimilar or not mentioned),'
        '       "conditions": ["condition1", "condition2"],'
        '       "dosage_administration": {'
        '           "dosage": "0.02%",'
        '           "administration": "topical, 4 times a day for 12 weeks"'
        '       }'
        '   },'
        ']'
    )

    result = ollama.generate(
        model=model,
        prompt=prompt,
        system=SYS_PROMPT
    )
    print(result['response'])
    return result['response']

from lapilli.compat.trials import ElementTree as ET
from lapilli.compat.trials import trials2DrugsList

TAGS_TO_KEEP = [
    'Internal_Number',
    'TrialID',
    'Public_title',
    'Scientific_title',
    'Condition',
    'Intervention'
]

class TrialXMLLoader:
    def __init__(self, file_path):
        self.file_path = file_path

    def load(self):
        dict = self._structuredXMLLoader()
        trials = []
        for elem in dict.get('children', []):
            trials.append(','.join([
                f"""(tag: {x.get('tag','').strip()}, text: {x.get('text','').strip()})"""
                for x in elem.get('children', [])
                if x.get('text','') and x.get('tag','') in TAGS_TO_KEEP
            ]))
        return trials

    def _structuredXMLLoader(self):
        tree = ET.parse(self.file_path)
        root = tree.getroot()
        return self._parse_element(root)

    def _parse_element(self, element):
        return {
            "tag": element.tag,
            "text": element.text.strip() if element.text else None,
            "attributes": element.attrib,
            "children": [self._parse_element(child) for child in element]
        }

xml_path = "./xml-1.xml"
loader = TrialXMLLoader(file_path=xml_path)

documents = loader.load()
drugs_list = trials2DrugsList(documents[:10], model='mini')
print(drugs_list[3])
