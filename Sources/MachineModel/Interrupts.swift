/// One input of an interrupt controller. A level-triggered device keeps it raised while it wants service; an edge-triggered one
/// raises and lowers it. Setting the level it has is harmless. Any thread may call.
public protocol IRQLine: AnyObject, Sendable {
    func set(_ level: Bool)
}

/// A message-signalled interrupt as a local APIC receives it (Intel SDM vol. 3, 10.11): address and data of the write.
/// An I/O APIC sends the same when a pin fires.
public struct InterruptMessage: Equatable, Sendable {
    public var address: UInt64
    public var data: UInt32

    public init(address: UInt64, data: UInt32) {
        self.address = address
        self.data = data
    }
}

/// The local APICs of all vCPUs, as devices with message-signalled interrupts see them. Any thread may call.
public protocol InterruptMessageReceiver: AnyObject, Sendable {
    /// Delivers a message; one that names no vCPU is dropped.
    func deliver(_ message: InterruptMessage)
    /// For a message that is sent over and over: a way through the host's kernel, if it has one more.
    func makeRoute() -> (any InterruptRoute)?
}

extension InterruptMessageReceiver {
    public func makeRoute() -> (any InterruptRoute)? { nil }
}

/// A message that the host's kernel keeps and delivers. Any thread may call.
public protocol InterruptRoute: AnyObject, Sendable {
    /// What is sent from now on. False if the kernel refuses it; the route is of no use then.
    func set(_ message: InterruptMessage) -> Bool
    /// Before a message is set nothing is sent.
    func send()
}

/// The local APICs of all vCPUs, as the chips of the board see them. Any thread may call.
public protocol LocalAPICBus: InterruptMessageReceiver {
    /// The 8259's INTR output: the boot processor's LINT0 as ExtINT.
    func setExternalInterrupt(_ level: Bool)
    /// Who is asked for the vector when a vCPU takes an ExtINT, and told of the end of level-triggered interrupts.
    /// Nil disconnects.
    func connect(_ source: (any InterruptSource)?)
    /// What an I/O APIC pin sends now, if it is level-triggered; nil if not. The end of such an interrupt must come to the source, other ends
    /// need not. Called with the I/O APIC's lock held.
    func setLevelTriggered(_ message: InterruptMessage?, pin: Int)
}

/// What the local APICs need of the chips behind them. Called on vCPU threads.
public protocol InterruptSource: AnyObject, Sendable {
    /// The INTA cycle of the 8259 pair: the vector to deliver.
    func acknowledgeExternalInterrupt() -> UInt8
    /// The EOI broadcast for a level-triggered interrupt, to the I/O APIC.
    func endOfInterrupt(vector: UInt8)
}
