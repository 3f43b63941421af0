//! The JSON Schema of the site configuration, for editors and for tools that write one. It takes and refuses what
//! [`SiteConfig::parse`] does, but for the length of the text, signatures, and the sum of a GPU's slices.

use super::{EndpointName, MAX_ENDPOINTS, MAX_SERVERS, MAX_SLICES, SiteAddress, SiteConfig};
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::{Value, json};
use std::borrow::Cow;

/// A number up to 255, and one in the first place of the address of one other machine.
const OCTET: &str = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
const FIRST: &str = "(22[0-3]|2[01][0-9]|1[3-9][0-9]|12[0-689]|1[01][0-9]|[1-9][0-9]|[1-9])";
/// A port, 1 to 65535.
const PORT: &str = "(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})";

/// The schema of the whole configuration.
pub fn schema() -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<SiteConfig>();
    // What one part asks of another.
    let network = json!({ "properties": { "network": { "properties": { "mode": { "enum": ["dhcp", "static"] } },
        "required": ["mode"] } }, "required": ["network"] });
    let servers = json!({ "properties": { "time": { "properties": { "servers": { "minItems": 1 } },
        "required": ["servers"] } }, "required": ["time"] });
    let untrusted = json!({ "properties": { "time": { "properties": { "rtc": { "const": "untrusted" } },
        "required": ["rtc"] } }, "required": ["time"] });
    let endpoints = json!({ "properties": { "endpoints": { "minProperties": 1 } }, "required": ["endpoints"] });
    schema.insert(
        "allOf".to_owned(),
        json!([
            { "if": servers, "then": network },
            { "if": untrusted, "then": servers },
            { "if": endpoints, "then": network },
        ]),
    );
    schema
}

/// IPv4 addresses of single machines.
pub(super) fn servers(_: &mut SchemaGenerator) -> Schema {
    let address = format!("^{FIRST}(\\.{OCTET}){{3}}$");
    json_schema!({ "type": "array", "maxItems": MAX_SERVERS, "items": { "type": "string", "pattern": address } })
}

/// Addresses of either kind.
pub(super) fn name_servers(generator: &mut SchemaGenerator) -> Schema {
    let newer = json!({ "type": "string", "format": "ipv6", "pattern": "^[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*$" });
    json_schema!({ "type": "array", "items": { "anyOf": [address(generator), newer] } })
}

/// One IPv4 address of any kind.
pub(super) fn address(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": format!("^{OCTET}(\\.{OCTET}){{3}}$") })
}

impl JsonSchema for EndpointName {
    fn schema_name() -> Cow<'static, str> {
        "EndpointName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[a-z][a-z0-9-]{0,31}$" })
    }
}

impl JsonSchema for SiteAddress {
    fn schema_name() -> Cow<'static, str> {
        "SiteAddress".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": format!("^{FIRST}(\\.{OCTET}){{3}}:{PORT}$") })
    }
}

/// Endpoints by name.
pub(super) fn endpoints(generator: &mut SchemaGenerator) -> Schema {
    let (name, address) = (EndpointName::json_schema(generator), SiteAddress::json_schema(generator));
    json_schema!({ "type": "object", "maxProperties": MAX_ENDPOINTS, "propertyNames": name,
        "additionalProperties": address })
}

/// Slices of a GPU: how many of each profile.
pub(super) fn slices(_: &mut SchemaGenerator) -> Schema {
    let name = json!({ "type": "string", "pattern": "^[1-7]g\\.[1-9][0-9]{0,2}gb([+-][a-z.]{1,8})?$" });
    let count = json!({ "type": "integer", "minimum": 1, "maximum": MAX_SLICES });
    json_schema!({ "type": "object", "propertyNames": name, "additionalProperties": count })
}

/// A GPU that is cut has slices, and one that is not has none.
pub(super) fn cut_or_whole() -> Value {
    json!([
        { "properties": { "mig-enabled": { "const": true }, "mig-devices": { "minProperties": 1 } },
          "required": ["mig-devices"] },
        { "properties": { "mig-enabled": { "const": false }, "mig-devices": { "maxProperties": 0 } } },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{env, fs, path::Path};

    const NAME: &str = "site.schema.json";

    #[test]
    fn the_schema_checked_in_is_that_of_the_type() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema").join(NAME);
        let mut schema = serde_json::to_value(schema()).unwrap();
        schema.sort_all_objects();
        let ours = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if env::var_os("GAP_CONTRACT_WRITE_SCHEMAS").is_some() {
            fs::write(&path, &ours).unwrap();
        }
        let theirs = fs::read_to_string(&path).unwrap_or_default();
        assert!(ours == theirs, "{NAME} is stale; run this test with GAP_CONTRACT_WRITE_SCHEMAS=1");
    }

    const DHCP: &str = "[network]\nmode = 'dhcp'\n";
    const STATIC: &str = "[network]\nmode = 'static'\naddress = '10.0.0.2'\nprefix = 24\n";

    #[test]
    fn the_schema_takes_and_refuses_what_the_appliance_does() {
        let schema = serde_json::to_value(schema()).unwrap();
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        let mut verdicts = [0, 0];
        for text in cases() {
            let value: toml::Value = toml::from_str(&text).unwrap();
            let by_schema = validator.is_valid(&serde_json::to_value(value).unwrap());
            let by_decoder = SiteConfig::parse(&text);
            assert_eq!(by_schema, by_decoder.is_ok(), "{text}\n{by_decoder:?}");
            verdicts[usize::from(by_schema)] += 1;
        }
        assert!(verdicts.iter().all(|count| *count > 15), "both verdicts are tried: {verdicts:?}");
    }

    fn cases() -> Vec<String> {
        let sha = "ab".repeat(32);
        let long = "x".repeat(64);
        let many = |count: usize, item: &str| vec![format!("'{item}'"); count].join(", ");
        let alone = [
            "",
            "hostname = 'rack4-u12'",
            "hostname = ''",
            "hostname = '-x'",
            "hostname = 'x-'",
            "hostname = 'a.b'",
            "hostname = 4",
            "trust = 'mine'",
            "[network]",
            "[network]\nmode = 'none'",
            "[network]\nmode = 'none'\ninterface = 'eth0'",
            "[network]\nmode = 'wifi'",
            "[network]\nmode = 'dhcp'\ninterface = 'eth0'",
            "[network]\nmode = 'dhcp'\ninterface = '../x'",
            "[network]\nmode = 'dhcp'\naddress = '10.0.0.2'",
            "[network]\nmode = 'static'\naddress = '10.0.0.2'",
            "[network]\nmode = 'static'\naddress = '10.0.0.2'\nprefix = 33",
            "[network]\nmode = 'static'\naddress = '10.0.0.2'\nprefix = 32\ngateway = '10.0.0.1'\ndns = ['10.0.0.1', '2001:db8::1']",
            "[network]\nmode = 'static'\naddress = '10.0.0.256'\nprefix = 24",
            "[network]\nmode = 'static'\naddress = '10.0.0.2'\nprefix = 24\ngateway = 'router'",
            "[network]\nmode = 'static'\naddress = '10.0.0.2'\nprefix = 24\ndns = ['example']",
            "[tls]\ncertificate = 'c'\nkey = 'k'",
            "[tls]\ncertificate = 'c'",
            "[api]\nport = 1",
            "[api]\nport = 0",
            "[api]\nport = 65536",
            "[api]\ntoken_sha256 = 'secret'",
            "[api]\nclient_authorities = 'pem'",
            "[data]\ndisk = 'nvme1n1'",
            "[data]\ndisk = '../sda'",
            "[data]\ndisk = 'sda'\nmemory = true",
            "[data]\ndisk = 'sda'\nmemory = false",
            "[data]\nmemory = true",
            "[time]",
            "[time]\nrtc = 'trusted'\nwrong_clock = 'refuse_jobs'",
            "[time]\nrtc = 'untrusted'",
            "[time]\nservers = ['10.0.0.1']",
            "[time]\nservers = []",
            "[time]\nwrong_clock = 'panic'",
            "[endpoints]",
            "[endpoints]\ndb = '10.0.0.3:5432'",
            "[gpus]",
            "[gpus]\nmig = []",
            "[gpus]\nmig = 'all'",
            "[[gpus.mig]]\ndevices = 'all'\nmig-enabled = false",
            "[[gpus.mig]]\ndevices = 'all'\nmig-enabled = false\nmig-devices = {}",
            "[[gpus.mig]]\ndevices = 'all'\nmig-enabled = false\nmig-devices = { '1g.18gb' = 1 }",
            "[[gpus.mig]]\ndevices = [0, 255]\nmig-enabled = true\nmig-devices = { '1g.18gb' = 1, '3g.71gb' = 2 }",
            "[[gpus.mig]]\ndevices = [256]\nmig-enabled = false",
            "[[gpus.mig]]\ndevices = [-1]\nmig-enabled = false",
            "[[gpus.mig]]\ndevices = 'some'\nmig-enabled = false",
            "[[gpus.mig]]\ndevices = 'all'",
            "[[gpus.mig]]\nmig-enabled = false",
            "[[gpus.mig]]\ndevices = 'all'\nmig-enabled = true",
            "[[gpus.mig]]\ndevices = 'all'\nmig-enabled = true\nmig-devices = { '1g.18gb' = 0 }",
            "[[gpus.mig]]\ndevices = 'all'\nmig-enabled = true\nmig-devices = { '1g.18gb' = 8 }",
            "[[gpus.mig]]\ndevices = 'all'\nmig-enabled = true\nmig-devices = { '1g.18gb+me' = 7 }",
            "[[gpus.mig]]\ndevices = 'all'\nmig-enabled = true\nmig-devices = { '-C' = 7 }",
            "[[gpus.mig]]\ndevices = 'all'\nmig-enabled = false\ndevice-filter = '0x233010DE'",
        ];
        let on_network = [
            "[time]\nservers = ['10.0.0.1', '192.0.2.254']\nrtc = 'untrusted'\nwrong_clock = 'wait'",
            "[time]\nservers = ['ntp.example']",
            "[time]\nservers = ['127.0.0.1']",
            "[time]\nservers = ['224.0.1.1']",
            "[time]\nservers = ['0.0.0.0']",
            "[time]\nservers = ['2001:db8::1']",
            "[endpoints]\npostgres-2 = '10.0.0.3:5432'\nx = '223.255.255.255:65535'",
            "[endpoints]\nUpper = '10.0.0.3:5432'",
            "[endpoints]\n2x = '10.0.0.3:5432'",
            "[endpoints]\ndb = '10.0.0.3'",
            "[endpoints]\ndb = '10.0.0.3:0'",
            "[endpoints]\ndb = '10.0.0.3:65536'",
            "[endpoints]\ndb = '10.0.0.3:05432'",
            "[endpoints]\ndb = '127.0.0.1:8443'",
            "[endpoints]\ndb = '255.255.255.255:1'",
            "[endpoints]\ndb = 'db.example:5432'",
            "[endpoints]\ndb = '[2001:db8::1]:5432'",
        ];
        let mut cases: Vec<String> = alone.map(str::to_owned).to_vec();
        cases.extend(on_network.iter().flat_map(|text| [format!("{DHCP}{text}"), format!("{STATIC}{text}")]));
        cases.push(format!("[api]\ntoken_sha256 = '{sha}'"));
        cases.push(format!("[api]\ntoken_sha256 = '{}'", sha.to_uppercase()));
        cases.push(format!("hostname = '{long}'"));
        cases.extend([64, 65].map(|count| "[[gpus.mig]]\ndevices = 'all'\nmig-enabled = false\n".repeat(count)));
        cases.extend([8, 9].map(|count| format!("{DHCP}[time]\nservers = [{}]", many(count, "10.0.0.1"))));
        cases.extend([32, 33].map(|count| {
            let lines: String = (0..count).map(|number| format!("e{number} = '10.0.0.3:80'\n")).collect();
            format!("{DHCP}[endpoints]\n{lines}")
        }));
        cases
    }
}
