import Glibc
import MachineModel
import NetBackends

/// Which network card of the machine is being connected.
public struct NetworkContext: Sendable {
    let number: Int
    let log: Log
}

/// A network card's cable. It outlives a reset.
public struct MachineNetwork: Sendable {
    let name: String
    /// Six bytes.
    let mac: [UInt8]
    let port: any PacketPort
    let transport: VirtioTransportKind
    let close: @Sendable () -> Void
}

extension Catalog {
    private static let commonOptions: [CatalogOption] = [
        CatalogOption(name: "mac", summary: "which Ethernet address the card has", defaultValue: "") {
            $0.isEmpty || parseMAC($0) != nil ? nil : "six bytes as in 02:00:00:12:34:56, of which the first is even"
        },
        .transport,
        .text("capture", "which file its traffic is recorded in (pcap)"),
    ]

    /// What a network card can be plugged into.
    public static let networks = CatalogSection<NetworkContext, MachineNetwork?>(
        flag: "--network",
        entries: [
            CatalogEntry(
                "user", summary: "the host's network, as an unprivileged program of the user's reaches it (by passt)",
                options: [
                    CatalogOption(
                        name: "publish",
                        summary:
                            "which ports of the host lead to the guest: [udp:][ADDRESS:]HOST:GUEST, several with + between",
                        defaultValue: ""
                    ) { publishedPorts($0) == nil ? "HOST:GUEST, such as 2222:22 or 8080:80+udp:5353:53" : nil }
                ] + commonOptions
            ) { (settings, context) throws(MachineError) in
                let name = "net\(context.number)"
                do throws(NetError) {
                    let log = context.log
                    let network = try UserNetwork(
                        ports: publishedPorts(settings.text("publish")) ?? [], name: "davit-\(name)",
                        onEnd: { log.write(.error, "\(name): \($0)") })
                    return try connect(network.port, network.close, settings, context)
                } catch {
                    throw MachineError(error.kind, "--network user: \(error)")
                }
            },
            CatalogEntry(
                "tap", summary: "a tap device of the host's",
                options: [.path("interface", "which device")] + commonOptions
            ) { (settings, context) throws(MachineError) in
                do throws(NetError) {
                    let port = try TapPort(
                        interface: settings.text("interface"), name: "davit-net\(context.number)")
                    return try connect(port, port.close, settings, context)
                } catch {
                    throw MachineError(error.kind, "--network tap: \(error)")
                }
            },
            CatalogEntry("none", summary: "no network card") { (_, _) throws(MachineError) in nil },
        ])

    /// A cable with what the settings put on it.
    private static func connect(
        _ port: any PacketPort, _ close: @escaping @Sendable () -> Void, _ settings: ComponentSettings,
        _ context: NetworkContext
    ) throws(NetError) -> MachineNetwork {
        let mac = parseMAC(settings.text("mac")) ?? makeMAC()
        let name = "net\(context.number)"
        guard !settings.text("capture").isEmpty else {
            return MachineNetwork(
                name: name, mac: mac, port: port, transport: settings.transport, close: close)
        }
        do throws(NetError) {
            let capture = try CapturingPort(port, path: settings.text("capture"))
            return MachineNetwork(name: name, mac: mac, port: capture, transport: settings.transport) {
                close()
                capture.close()
            }
        } catch {
            close()
            throw error
        }
    }

    private static func publishedPorts(_ text: String) -> [PublishedPort]? {
        var ports: [PublishedPort] = []
        for part in text.split(separator: "+") {
            guard let port = PublishedPort(String(part)) else { return nil }
            ports.append(port)
        }
        return ports
    }

    private static func parseMAC(_ text: String) -> [UInt8]? {
        let bytes = text.split(separator: ":", omittingEmptySubsequences: false).map { UInt8($0, radix: 16) }
        guard bytes.count == 6, let first = bytes[0], first & 1 == 0 else { return nil }
        let known = bytes.compactMap(\.self)
        return known.count == 6 ? known : nil
    }

    /// A random address that no maker has given out (locally administered).
    private static func makeMAC() -> [UInt8] { [2] + (0..<5).map { _ in UInt8.random(in: 0...255) } }
}

extension NetError {
    fileprivate var kind: MachineError.Kind {
        switch reason {
        case .unavailable: .unavailable
        case .refused: .host
        case .badRequest: .configuration
        }
    }
}
