"""A built-in conversation format as a chat template in Jinja, so that a saved model takes its format along."""

from __future__ import annotations

import json

from lapilli.errors import TemplateError
from lapilli.inputs.formats import Format
from lapilli.inputs.templates import ChatTemplate, Go

# What Format.render does, in Jinja's words; the variables of `form_` are set before it.
_PROGRAM = """
{%- macro said(text) -%}
{{- text | trim if form_trims else text -}}
{%- endmacro -%}
{%- macro turn(message, before, held, after) -%}
{{- before -}}{{- held -}}
{%- if message['content'] is string -%}
{{- said(message['content']) -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if not loop.first -%}{{- form_between -}}{%- endif -%}
{%- if part['type'] == 'image' -%}{{- '<image>' -}}{%- else -%}{{- said(part['text']) -}}{%- endif -%}
{%- if loop.last and part['type'] == 'image' -%}{{- form_between -}}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- after -}}
{%- endmacro -%}
{{- form_opening -}}
{%- set held = namespace(text='') -%}
{%- if not messages or messages[0]['role'] != 'system' -%}{%- set held.text = form_default -%}{%- endif -%}
{%- if not form_system_in_user -%}{{- held.text -}}{%- set held.text = '' -%}{%- endif -%}
{%- for message in messages -%}
{%- if message['role'] == 'system' and form_system_in_user -%}
{%- set held.text = turn(message, form_system[0], '', form_system[1]) -%}
{%- elif message['role'] == 'system' -%}
{{- turn(message, form_system[0], '', form_system[1]) -}}
{%- elif message['role'] == 'user' -%}
{{- turn(message, form_user[0], held.text, form_user[1]) -}}{%- set held.text = '' -%}
{%- elif message['role'] == 'assistant' -%}
{{- turn(message, form_assistant[0], held.text, form_assistant[1]) -}}{%- set held.text = '' -%}
{%- else -%}
{{- raise_exception('this conversation format has no place for a ' ~ message['role'] ~ ' message') -}}
{%- endif -%}
{%- endfor -%}
{{- held.text -}}
{%- if add_generation_prompt -%}{{- form_cue -}}{%- endif -%}
"""


def jinja_source(template: ChatTemplate) -> str:
    """The template's own program, or one that writes what its format writes.

    Raises TemplateError for a template in another language.
    """
    if isinstance(template.form, Go):
        raise TemplateError("a checkpoint carries its chat template in Jinja, this one is in Go's text/template")
    if not isinstance(template.form, Format):
        return template.form.source
    form = template.form
    settings = {
        "trims": form.trims,
        "between": form.between,
        "opening": form.opening,
        "default": form.system.before + form.default_system + form.system.after if form.default_system else "",
        "system_in_user": form.system_in_user,
        "system": [form.system.before, form.system.after],
        "user": [form.user.before, form.user.after],
        "assistant": [form.assistant.before, form.assistant.after],
        "cue": form.cue,
    }
    given = "".join(f"{{%- set form_{name} = {json.dumps(value)} -%}}\n" for name, value in settings.items())
    return (given + _PROGRAM.lstrip()).replace("-%}\n", "-%}").replace("-}}\n", "-}}")
