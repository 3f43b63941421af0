//! Chat templates against what unmodified Transformers renders (`reference/templates.py`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod reference;

use gap_lm::chat_template::ChatTemplate;
use serde_json::Value;

/// Python's words for a mistake are its own; that there is one is not.
#[test]
fn json_is_written_as_transformers_writes_it_whatever_is_asked_for() {
    let recorded = reference::recorded("templates");
    let messages = &recorded["conversations"][4];
    for case in recorded["filters"].as_array().unwrap() {
        let source = case["template"].as_str().unwrap();
        let own = ChatTemplate::new(source, std::collections::BTreeMap::new()).unwrap();
        let rendered = own.render(messages, None::<&()>, true, &serde_json::Map::new());
        match case["text"].as_str() {
            Some(expected) => assert_eq!(rendered.unwrap(), expected, "{source}"),
            None => assert!(rendered.is_err(), "{source}: {rendered:?}"),
        }
    }
}

#[test]
fn every_conversation_is_rendered_as_transformers_renders_it() {
    let recorded = reference::recorded("templates");
    let special = serde_json::from_value::<std::collections::BTreeMap<String, String>>(recorded["special"].clone());
    let special = special.unwrap();
    let list = |value: &Value| value.as_array().unwrap().clone();
    let mut compared = 0;
    for template in list(&recorded["templates"]) {
        let own = ChatTemplate::new(template["template"].as_str().unwrap(), special.clone()).unwrap();
        for (messages, expected) in list(&recorded["conversations"]).iter().zip(list(&template["rendered"])) {
            for (request, expected) in list(&recorded["requests"]).iter().zip(list(&expected)) {
                let tools = Some(&request["tools"]).filter(|tools| !tools.is_null());
                let prompt = request["add_generation_prompt"].as_bool().unwrap();
                let rendered = own.render(messages, tools, prompt, request["more"].as_object().unwrap());
                let what = format!("{} of {messages} with {request}", template["name"]);
                match (rendered, expected["text"].as_str()) {
                    (Ok(text), Some(expected)) => assert_eq!(text, expected, "{what}"),
                    (Err(error), None) => {
                        assert!(
                            format!("{error:#}").contains(expected["error"].as_str().unwrap()),
                            "{what}: {error:#}"
                        );
                    }
                    (other, _) => panic!("{what}: {other:?} is not {expected}"),
                }
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 160);
}
