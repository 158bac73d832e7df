import DavitTesting
import DeviceBus
import GuestMemory
import HostLinux
import MachineModel
import PCI
import VirtioDevices
import VirtioTransport

private let memory = try! GuestMemory(size: 1 << 20)

private final class NoInterrupts: InterruptMessageReceiver, Sendable {
    func deliver(_ message: InterruptMessage) {}
}

private final class NoPorts: PortDevice {
    func readPort(offset: UInt16, width: AccessWidth) -> UInt32 { 0 }
    func writePort(offset: UInt16, width: AccessWidth, value: UInt32) {}
}

/// Reads and writes of every width: configuration space by ports and by ECAM, BARs that move, and the registers of a device behind each
/// transport.
func fuzzRegisters(_ input: FuzzInput) {
    var input = input
    let bus = SystemBus()
    let line = RecordingIRQLine()
    let bridge = try! PCIHostBridge(
        memory: bus.mmio, memoryWindow: 0xC000_0000..<0xC100_0000, makeLineEnd: { _ in line })
    let pci = try! VirtioPCI(VirtioEntropy(name: "e"), on: bridge, apics: NoInterrupts(), memory: memory) { _ in }
    let mmio = VirtioMMIO(VirtioBalloon(name: "b", memory: memory), line: line, memory: memory) { _ in }
    try! bus.ports.attach(bridge.makePorts(resetControl: NoPorts()), name: "bridge", at: 0xCF8...0xCFF)
    try! bus.mmio.attach(bridge.makeECAM(), name: "ecam", at: .init(0xE000_0000), size: 1 << 20)
    try! bus.mmio.attach(mmio, name: "mmio", at: .init(0xD000_0000), size: VirtioMMIO.size)
    defer { pci.close() }
    var steps = 0
    while !input.isEmpty, steps < 256 {
        steps += 1
        let step = input.byte()
        let width: AccessWidth = [.one, .two, .four, .eight][Int(step & 3)]
        let offset = UInt64(input.number(UInt16.self))
        let isWrite = step & 4 != 0
        let value = isWrite ? input.number(UInt64.self) : 0
        let base: UInt64
        switch step >> 4 & 3 {
        case 0:
            bus.writePort(0xCF8, width: .four, value: 1 << 31 | UInt32(offset))
            let port = 0xCFC + UInt16(offset & 3)
            let width: AccessWidth = width == .eight ? .four : width
            if isWrite {
                bus.writePort(port, width: width, value: UInt32(truncatingIfNeeded: value))
            } else {
                _ = bus.readPort(port, width: width)
            }
            continue
        case 1: base = 0xE000_0000
        case 2: base = 0xC000_0000
        default: base = 0xD000_0000
        }
        if isWrite {
            bus.writeMMIO(GuestPhysicalAddress(base + offset), width: width, value: value)
        } else {
            _ = bus.readMMIO(GuestPhysicalAddress(base + offset), width: width)
        }
    }
    let isDone = Flag()
    pci.reset { isDone.set() }
    guard isDone.isSet else { fatalError("the reset does not end") }
}
