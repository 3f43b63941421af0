//! The network in a namespace of its own: what the agent sets up there, and that nothing else leaves it.
//!
//! Each test runs its inner half, which is named `inside_…`, in new user and network namespaces.

use crate::machine::{Machine, TOKEN};
use dhcproto::{
    Decodable, Decoder, Encodable, Encoder,
    v4::{DhcpOption, Message, MessageType, Opcode, OptionCode},
};
use futures::TryStreamExt;
use gap_agent::{
    network::{self, Board, Drivers, Links},
    root::Root,
    server::Limits,
};
use gap_handover::site::Network;
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    process::Command,
    sync::Arc,
    thread,
    time::Duration,
};
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Set for the inner halves: they must not run anywhere else.
const INSIDE: &str = "GAP_TEST_INSIDE_NAMESPACES";

fn in_new_namespaces(inner: &str) {
    let test = format!("network::{inner}");
    let program = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--uts"])
        .arg(program)
        .env(INSIDE, "yes")
        .args(["--exact", &test, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
}

#[test]
fn nothing_leaves_the_machine() {
    in_new_namespaces("inside_nothing_leaves_the_machine");
}

#[test]
fn an_address_comes_by_dhcp() {
    in_new_namespaces("inside_an_address_comes_by_dhcp");
}

#[test]
fn a_fixed_address_is_set() {
    in_new_namespaces("inside_a_fixed_address_is_set");
}

#[test]
fn an_interface_that_goes_and_comes_back_gets_its_address_again() {
    in_new_namespaces("inside_an_interface_that_goes_and_comes_back_gets_its_address_again");
}

#[test]
fn an_address_is_used_though_its_route_is_refused() {
    in_new_namespaces("inside_an_address_is_used_though_its_route_is_refused");
}

fn conversation() -> Handle {
    assert!(std::env::var_os(INSIDE).is_some(), "this changes the network and runs only in a namespace of its own");
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    tokio::spawn(connection);
    handle
}

async fn index(handle: &Handle, name: &str) -> u32 {
    handle.link().get().match_name(name).execute().try_next().await.unwrap().unwrap().header.index
}

async fn up(handle: &Handle, name: &str) {
    // Without this the kernel itself would send router solicitations.
    fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1").unwrap();
    let index = index(handle, name).await;
    handle.link().set(LinkMessageBuilder::<LinkUnspec>::default().index(index).up().build()).execute().await.unwrap();
}

/// Packets that an interface sent.
fn sent(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/net/dev").unwrap();
    let line = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.split_whitespace().nth(9).unwrap().parse().unwrap()
}

/// Every internet socket of the namespace, as table and local and remote port.
fn sockets() -> BTreeSet<(&'static str, u16, u16)> {
    let mut all = BTreeSet::new();
    for table in ["tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6"] {
        let text = fs::read_to_string(format!("/proc/self/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let port = |word: &str| u16::from_str_radix(word.rsplit(':').next().unwrap(), 16).unwrap();
            let mut words = line.split_whitespace().skip(1);
            all.insert((table, port(words.next().unwrap()), port(words.next().unwrap())));
        }
    }
    let packet = fs::read_to_string("/proc/self/net/packet").unwrap_or_default();
    all.extend(packet.lines().skip(1).map(|_| ("packet", 0, 0)));
    all
}

#[tokio::test]
#[ignore = "runs in a namespace, started by nothing_leaves_the_machine"]
async fn inside_nothing_leaves_the_machine() {
    let root = tempfile::tempdir().unwrap();
    let board = Board::new(&Network::None);
    let root = Root::new(root.path());
    let drivers = Drivers::load(&root, &Network::None, "none".into());
    network::keep(root, Network::None, drivers, &board, |_| {}).await;
    assert_eq!(board.state().problem, None);

    // Everything that is not for loopback goes to an interface that counts, first of all the questions for neighbours.
    let handle = wire().await;
    let out = index(&handle, "wire0").await;
    handle.address().add(out, IpAddr::from([192, 0, 2, 1]), 24).execute().await.unwrap();
    let route = RouteMessageBuilder::<Ipv4Addr>::new().output_interface(out).build();
    handle.route().add(route).execute().await.unwrap();

    let machine = Arc::new(Machine::start(Limits::default()));
    let clients: Vec<_> = (0..20)
        .map(|n| {
            let machine = machine.clone();
            let path = ["/v1/system", "/healthz", "/openapi.json", "/none"][n % 4];
            tokio::spawn(async move { machine.get(path, Some(TOKEN)).await.status })
        })
        .collect();
    for client in clients {
        assert!([200, 404].contains(&client.await.unwrap()));
    }
    assert_eq!(machine.ask("POST", "/v1/system/reboot", Some(TOKEN)).await.status, 202);
    let port = machine.address.port();
    let others: Vec<_> = sockets().into_iter().filter(|(_, local, remote)| *local != port && *remote != port).collect();
    assert!(others.is_empty(), "sockets that are neither the listener nor its clients: {others:?}");
    assert!(sockets().contains(&("tcp", port, 0)), "the listener is among those that are looked at");
    assert_eq!(sent("wire0"), 0, "a packet left");

    // The same look does see a packet that leaves and a socket that is not the listener.
    let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
    socket.send_to(b"x", "198.51.100.1:9").await.unwrap();
    assert_eq!(sent("wire0"), 1);
    assert!(sockets().contains(&("udp", socket.local_addr().unwrap().port(), 0)));
}

/// A network of two interfaces, `wire0` for the agent and `wire1` for whoever stands at the other end.
async fn wire() -> Handle {
    let handle = conversation();
    lay_wire(&handle).await;
    handle
}

async fn lay_wire(handle: &Handle) {
    handle.link().add(LinkVeth::new("wire0", "wire1").build()).execute().await.unwrap();
    up(handle, "wire0").await;
    up(handle, "wire1").await;
}

/// Answers every client on `wire1` until the process ends.
fn serve_dhcp() {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
    socket.set_broadcast(true).unwrap();
    socket.bind_device(Some(b"wire1")).unwrap();
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 67).into()).unwrap();
    let socket: std::net::UdpSocket = socket.into();
    let mut buffer = [0; 1500];
    while let Ok((length, _)) = socket.recv_from(&mut buffer) {
        let request = Message::decode(&mut Decoder::new(&buffer[..length])).unwrap();
        let kind = match request.opts().msg_type().unwrap() {
            MessageType::Discover => MessageType::Offer,
            _ => MessageType::Ack,
        };
        let mut answer = Message::default();
        answer.set_opcode(Opcode::BootReply).set_xid(request.xid()).set_chaddr(request.chaddr());
        answer.set_yiaddr([10, 9, 0, 15]);
        let options = answer.opts_mut();
        options.insert(DhcpOption::MessageType(kind));
        options.insert(DhcpOption::ServerIdentifier([10, 9, 0, 1].into()));
        options.insert(DhcpOption::SubnetMask([255, 255, 255, 0].into()));
        options.insert(DhcpOption::Router(vec![[10, 9, 0, 1].into()]));
        options.insert(DhcpOption::DomainNameServer(vec![[10, 9, 0, 53].into()]));
        options.insert(DhcpOption::AddressLeaseTime(3600));
        assert!(request.opts().contains(OptionCode::ParameterRequestList));
        let mut bytes = Vec::new();
        answer.encode(&mut Encoder::new(&mut bytes)).unwrap();
        socket.send_to(&bytes, SocketAddr::from(([255, 255, 255, 255], 68))).unwrap();
    }
}

/// Runs the agent's network until it has an address; returns that and what the board and the kernel then say.
async fn bring_up(network: Network) -> (Ipv4Addr, network::NetworkState, String, String) {
    let mut kept = Kept::start(network);
    let address = kept.address().await;
    let routes = fs::read_to_string("/proc/self/net/route").unwrap();
    let servers = fs::read_to_string(kept.root.at("/run/gap/resolv.conf")).unwrap();
    kept.keeping.abort();
    (address, kept.board.state(), routes, servers)
}

/// The agent's network while it is kept.
struct Kept {
    _directory: tempfile::TempDir,
    root: Root,
    board: Arc<Board>,
    addresses: mpsc::UnboundedReceiver<Ipv4Addr>,
    keeping: JoinHandle<()>,
}

impl Kept {
    fn start(network: Network) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("run/gap")).unwrap();
        let root = Root::new(directory.path());
        let board = Arc::new(Board::new(&network));
        let (ready, addresses) = mpsc::unbounded_channel();
        let drivers = Drivers::load(&root, &network, "none".into());
        let keeping = tokio::spawn({
            let (root, board) = (root.clone(), board.clone());
            async move { network::keep(root, network, drivers, &board, |address| ready.send(address).unwrap()).await }
        });
        Self { _directory: directory, root, board, addresses, keeping }
    }

    /// The next address that is ready.
    async fn address(&mut self) -> Ipv4Addr {
        timeout(Duration::from_secs(20), self.addresses.recv()).await.unwrap().unwrap()
    }
}

/// The fixed address 10.9.0.2 on `wire0`.
fn fixed(gateway: [u8; 4]) -> Network {
    Network::Static {
        interface: Some("wire0".into()),
        address: [10, 9, 0, 2].into(),
        prefix: 24,
        gateway: Some(gateway.into()),
        dns: vec![IpAddr::from([10, 9, 0, 53])],
    }
}

/// The default route by 10.9.0.1, as the kernel writes it.
fn has_default_route(routes: &str) -> bool {
    routes.lines().any(|line| line.starts_with("wire0\t00000000\t0100090A\t"))
}

#[tokio::test]
#[ignore = "runs in a namespace, started by an_address_comes_by_dhcp"]
async fn inside_an_address_comes_by_dhcp() {
    wire().await;
    thread::spawn(serve_dhcp);
    let (address, state, routes, servers) = bring_up(Network::Dhcp { interface: Some("wire0".into()) }).await;
    assert_eq!(address, Ipv4Addr::new(10, 9, 0, 15));
    assert_eq!((state.mode, state.address.as_deref()), ("dhcp", Some("10.9.0.15/24")));
    assert_eq!(state.problem, None);
    assert!(has_default_route(&routes), "{routes}");
    assert_eq!(servers, "nameserver 10.9.0.53\n");
}

#[tokio::test]
#[ignore = "runs in a namespace, started by a_fixed_address_is_set"]
async fn inside_a_fixed_address_is_set() {
    let handle = wire().await;
    let old = index(&handle, "wire0").await;
    handle.address().add(old, IpAddr::from([10, 8, 0, 2]), 24).execute().await.unwrap();
    let (address, state, routes, servers) = bring_up(fixed([10, 9, 0, 1])).await;
    assert_eq!((address, state.address.as_deref()), (Ipv4Addr::new(10, 9, 0, 2), Some("10.9.0.2/24")));
    assert!(has_default_route(&routes), "{routes}");
    assert_eq!(servers, "nameserver 10.9.0.53\n");
    let addresses: Vec<_> = handle.address().get().set_link_index_filter(old).execute().try_collect().await.unwrap();
    assert_eq!(addresses.iter().filter(|address| address.header.index == old).count(), 1, "the old address is gone");
    let wired = Links::open().unwrap().find_wired(None).await.unwrap();
    assert_eq!(wired, None, "an interface made by software is not taken for a wire unless it is named");
}

#[tokio::test]
#[ignore = "runs in a namespace, started by an_interface_that_goes_and_comes_back_gets_its_address_again"]
async fn inside_an_interface_that_goes_and_comes_back_gets_its_address_again() {
    let handle = wire().await;
    let dhcp = Network::Dhcp { interface: Some("wire0".into()) };
    thread::spawn(serve_dhcp);
    for (network, expected) in [(dhcp, [10, 9, 0, 15]), (fixed([10, 9, 0, 1]), [10, 9, 0, 2])] {
        let mut kept = Kept::start(network);
        assert_eq!(kept.address().await, Ipv4Addr::from(expected));
        handle.link().del(index(&handle, "wire0").await).execute().await.unwrap();
        let gone = async {
            while kept.board.state().address.is_some() {
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(Duration::from_secs(20), gone).await.unwrap();
        assert!(kept.board.state().problem.is_some_and(|problem| problem.contains("wire0")));
        lay_wire(&handle).await;
        thread::spawn(serve_dhcp);
        assert_eq!(kept.address().await, Ipv4Addr::from(expected));
        assert_eq!(kept.board.state().problem, None);
        assert!(has_default_route(&fs::read_to_string("/proc/self/net/route").unwrap()));
        kept.keeping.abort();
    }
}

#[tokio::test]
#[ignore = "runs in a namespace, started by an_address_is_used_though_its_route_is_refused"]
async fn inside_an_address_is_used_though_its_route_is_refused() {
    wire().await;
    // The kernel takes no gateway that is the machine itself.
    let mut kept = Kept::start(fixed([10, 9, 0, 2]));
    assert_eq!(kept.address().await, Ipv4Addr::new(10, 9, 0, 2));
    let state = kept.board.state();
    assert_eq!((state.address.as_deref(), state.gateway), (Some("10.9.0.2/24"), None));
    assert!(state.problem.is_some_and(|problem| problem.contains("route through 10.9.0.2")));
    kept.keeping.abort();
}
