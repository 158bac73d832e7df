import DeviceBus
import GuestMemory
import MachineModel
import Synchronization

@testable import VMRuntime

/// Ports and registers: reads give what the address says, writes are noted.
final class NotingDevice: GuestIO {
    struct Access: Equatable {
        var address: UInt64
        var width: Int
        var value: UInt64
    }

    private struct Notes {
        var reports: [UInt32] = []
        var accesses: [Access] = []
        var vcpus: [any VCPU] = []
    }

    private let notes = Mutex(Notes())
    var reports: [UInt32] { notes.withLock { $0.reports } }
    var accesses: [Access] { notes.withLock { $0.accesses } }

    func setEngine(_ engine: any Engine) { notes.withLock { $0.vcpus = engine.vcpus } }

    func readPort(_ port: UInt16, width: AccessWidth) -> UInt32 {
        UInt32(truncatingIfNeeded: (0x1122_3344 &+ UInt64(port)) & width.mask)
    }

    func writePort(_ port: UInt16, width: AccessWidth, value: UInt32) {
        let vcpus = notes.withLock { notes in
            if port == 0xE9 { notes.reports.append(value) }
            notes.accesses.append(Access(address: UInt64(port), width: width.bytes, value: UInt64(value)))
            return port == 0xF4 ? notes.vcpus : []
        }
        for vcpu in vcpus { vcpu.requestStop() }
    }

    func readMMIO(_ address: GuestPhysicalAddress, width: AccessWidth) -> UInt64 {
        (0x8877_6655_4433_2211 ^ address.rawValue) & width.mask
    }

    func writeMMIO(_ address: GuestPhysicalAddress, width: AccessWidth, value: UInt64) {
        notes.withLock { $0.accesses.append(Access(address: address.rawValue, width: width.bytes, value: value)) }
    }
}

/// Interrupt lines for a guest's use, and the controllers behind them if its engine has local APICs only; a noting device for all else.
///
/// A write to port 0xE2 sets a line: its global system interrupt, or an ISA interrupt's number, with bit 7 to raise it. Port 0xE3 does that 20 ms later.
final class InterruptBoard: GuestIO {
    static let setLine: UInt16 = 0xE2
    static let setLineLater: UInt16 = 0xE3

    private struct Wiring {
        var lines: [any IRQLine] = []
        var clock: (any VMClock)?
        var timer: (any VMTimer)?
    }

    private let bus = SystemBus()
    private let device: NotingDevice
    /// Guards the wiring; not held while a line is set.
    private let wiring = Mutex(Wiring())

    init(_ device: NotingDevice) { self.device = device }

    func connect(_ interrupts: EngineInterrupts, clock: any VMClock) throws {
        let pins = 0..<PlatformLayout.ioapicPinCount
        let board = try InterruptLines(interrupts, on: bus)
        let lines = pins.map { $0 < 16 ? board.isa($0) : board.pin($0) }
        wiring.withLock { $0 = Wiring(lines: lines, clock: clock) }
    }

    private func setLine(_ value: UInt32) {
        let lines = wiring.withLock { $0.lines }
        lines[Int(value & 0x1F)].set(value & 0x80 != 0)
    }

    func readPort(_ port: UInt16, width: AccessWidth) -> UInt32 {
        PlatformLayout.Port.pic1.contains(port)
            ? bus.readPort(port, width: width) : device.readPort(port, width: width)
    }

    func writePort(_ port: UInt16, width: AccessWidth, value: UInt32) {
        switch port {
        case PlatformLayout.Port.pic1: bus.writePort(port, width: width, value: value)
        case Self.setLine: setLine(value)
        case Self.setLineLater:
            wiring.withLock { wiring in
                wiring.timer = wiring.clock?.makeTimer { [weak self] in self?.setLine(value) }
                wiring.timer?.arm(at: (wiring.clock?.now ?? 0) + 20_000_000)
            }
        default: device.writePort(port, width: width, value: value)
        }
    }

    private func isIOAPIC(_ address: GuestPhysicalAddress) -> Bool {
        address.rawValue &- PlatformLayout.MMIO.ioapic.rawValue < PlatformLayout.MMIO.ioapicSize
    }

    func readMMIO(_ address: GuestPhysicalAddress, width: AccessWidth) -> UInt64 {
        isIOAPIC(address) ? bus.readMMIO(address, width: width) : device.readMMIO(address, width: width)
    }

    func writeMMIO(_ address: GuestPhysicalAddress, width: AccessWidth, value: UInt64) {
        if isIOAPIC(address) {
            bus.writeMMIO(address, width: width, value: value)
        } else {
            device.writeMMIO(address, width: width, value: value)
        }
    }
}
