#!/usr/bin/env python3
"""Records how unmodified Transformers renders conversations through chat templates written as those of the families are:
with tools, calls of tools and their answers, thoughts that are left out of earlier turns, dates, refusals.

Run where transformers is (tests/torch.sh):  templates.py > templates.json
"""

import json
import sys

from transformers.utils.chat_template_utils import render_jinja_template

CHATML_TOOLS = r"""{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are a helpful assistant.' }}
    {%- endif %}
    {{- "\n\n# Tools\n\nSignatures within <tools></tools>:\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\n</tools>\n\n<tool_call>\n{\"name\": <name>, \"arguments\": <json>}\n</tool_call><|im_end|>\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\n<tool_call>\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' }}
        {{- message.content }}
        {{- '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""

CHATML_THOUGHTS = r"""{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if message.role in ["user", "system"] %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or (not loop.last and reasoning_content)) %}
            {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {{- '<|im_start|>user\n<tool_response>\n' ~ content ~ '\n</tool_response><|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}"""

HEADERS = r"""{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{{- "Today Date: " + date_string + "\n\n" }}
{%- if tools is not none %}
    {{- "You have access to the following functions:\n\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\n\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""

BRACKETS = r"""{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, conversation roles must alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\n\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}
                {{- ", " }}
            {%- else %}
                {{- "]" + eos_token }}
            {%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool_results" or message["role"] == "tool" %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content|string + ", " }}
        {{- '"call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}
"""

# What else people write into templates.
ODDITIES = r"""{% macro turn(role, text='') -%}
<{{ role|upper }}{{ '!' * loop_depth }}> {{ text }}
{%- endmacro %}
{% set loop_depth = 2 %}
{% for message in messages if message['role'] != 'system' %}
  {% if loop.index is odd %}{{ turn(message['role'], message['content']|replace('a', 'A')|title) }}
  {% else %}{{ message.get('name', 'nobody') ~ ': ' ~ message['content'].strip().split(' ')|join('_') }}
  {% endif %}
  {%- if not loop.last -%} {{ '|' }} {%- endif +%}
{% endfor %}
{{ messages|map(attribute='role')|join(',') }} {{ messages|length }} {{ '%s-%03d'|format('x', 7) }} {{ 7 // 2 }} {{ 2 ** 5 }} {{ 1.0 }} {{ true }} {{ none }}
{{ {'b': [1, 2.5, none, true], 'a': "ä\"</x>&'"}|tojson }} {{ ['u', 'v'] }} {{ messages[-1]['content'][1:4] }} {{ 'yes' if 'x' in 'axb' else 'no' }}"""

# What the filter `tojson` makes of its options.
DATA = r"""{'b': [1, -2.5, none, true], 'a': "ä\"\n\t\x7f<x>&'\\ 😀", 'c': {}, 'd': [], 'Z': [1e16, 0.00001, 1e22, 0.1, 3.0]}"""
FILTERS = [
    "{{ %s|tojson }}" % DATA,
    *("{{ %s|tojson(%s) }}" % (DATA, options) for options in (
        "sort_keys=true", "sort_keys=false", "ensure_ascii=true", "ensure_ascii=false", "true", "indent=2", "indent=0",
        "indent=-1", "indent=none", "indent='\t'", "indent=4, sort_keys=true, ensure_ascii=true", "separators=(',', ':')",
        "separators=[' ,', ' = ']", "indent=1, separators=(', ', ':')", "false, 2", "false, none, (',', ':'), true",
    )),
    "{{ messages|tojson(sort_keys=true) }}", "{{ messages[0:1]|tojson(indent=2) }}", "{{ range(3)|list|tojson }}",
    "{{ {10: 'x', 9: none, 2.5: [true]}|tojson(sort_keys=true) }}", "{{ {none: 1, false: 2}|tojson }}",
    "{{ 'a'|tojson }} {{ 7|tojson }} {{ 2.0|tojson }} {{ none|tojson }} {{ true|tojson }}",
    "{{ nowhere|tojson }}", "{{ 1|tojson(separators=(',',)) }}", "{{ 1|tojson(width=3) }}",
]

TOOLS = [
    {"type": "function", "function": {
        "name": "weather", "description": "The weather of a place — today's \"best\" guess.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
                       "required": ["place"]}}},
    {"type": "function", "function": {"name": "now", "description": "", "parameters": {"type": "object", "properties": {}}}},
]
CALL = {"id": "abcdef123", "type": "function", "function": {"name": "weather", "arguments": {"place": "Köln", "days": 2}}}
USER = {"role": "user", "content": "  What is it like in Köln <today>?\n"}
CONVERSATIONS = [
    [USER],
    [{"role": "system", "content": " Be brief. "}, USER, {"role": "assistant", "content": " Wet. "}, {"role": "user", "content": "And a b c?"}],
    [USER, {"role": "assistant", "content": "<think>\nrain\n</think>\n\nWet."}, {"role": "user", "content": "Sure?"},
     {"role": "assistant", "content": "<think>\nyes, a gain\n</think>\n\nYes."}],
    [USER, {"role": "assistant", "content": "Wet.", "reasoning_content": "a cloud"}],
    [USER, {"role": "assistant", "content": "", "tool_calls": [CALL]},
     {"role": "tool", "content": "{\"rain\": true}", "tool_call_id": "abcdef123"}],
    [USER, {"role": "assistant", "content": "Two.", "tool_calls": [CALL, {**CALL, "id": "abcdef124"}]},
     {"role": "tool", "content": "1", "tool_call_id": "abcdef123"}, {"role": "tool", "content": "2", "tool_call_id": "abcdef124"},
     {"role": "assistant", "content": "Both are wet.\n"}],
    [USER, USER],
    [{"role": "assistant", "content": "I begin."}],
]
TEMPLATES = {"chatml-tools": CHATML_TOOLS, "chatml-thoughts": CHATML_THOUGHTS, "headers": HEADERS, "brackets": BRACKETS,
             "oddities": ODDITIES}
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
MORE = [(True, None, {}), (False, None, {}), (True, TOOLS, {}), (True, None, {"enable_thinking": False, "date_string": "1 Jan 2030"})]


def render(template, messages, prompt, tools, more):
    try:
        texts, _ = render_jinja_template([messages], tools=tools, chat_template=template, add_generation_prompt=prompt, **SPECIAL, **more)
        return {"text": texts[0]}
    except Exception as error:  # what a template raises has no type of its own
        return {"error": str(error)}


recorded = {
    "special": SPECIAL, "conversations": CONVERSATIONS,
    "requests": [{"add_generation_prompt": prompt, "tools": tools, "more": more} for prompt, tools, more in MORE],
    "templates": [{
        "name": name, "template": template,
        "rendered": [[render(template, messages, *request) for request in MORE] for messages in CONVERSATIONS],
    } for name, template in TEMPLATES.items()],
    "filters": [{"template": template, **render(template, CONVERSATIONS[4], True, None, {})} for template in FILTERS],
}
json.dump(recorded, sys.stdout, ensure_ascii=False, indent=1)
print()
