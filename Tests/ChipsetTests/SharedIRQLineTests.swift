import DavitTesting
import MachineModel
import Testing

@testable import Chipset

@Suite struct SharedIRQLineTests {
    @Test func theLineIsRaisedWhileAnyEndIs() {
        let line = RecordingIRQLine()
        let shared = SharedIRQLine(line)
        let (com1, com3) = (shared.makeEnd(), shared.makeEnd())
        com1.set(true)
        com3.set(true)
        com1.set(false)
        #expect(line.edges == [true])
        com3.set(false)
        com3.set(false)
        #expect(line.edges == [true, false])
    }

    /// COM1 and COM3 on IRQ 4: each is heard, whichever comes first.
    @Test func twoSerialPortsShareTheirInterrupt() {
        let (line, clock) = (RecordingIRQLine(), ManualClock())
        let shared = SharedIRQLine(line)
        let ports = (0..<2).map { _ in UART16550(irq: shared.makeEnd(), channel: nil, clock: clock) }
        for port in ports {
            port.out(4, 0x08)
            port.out(1, 0x02)
        }
        #expect(ports[0].byte(2) == 0x02)
        #expect(line.level)
        #expect(ports[1].byte(2) == 0x02)
        #expect(!line.level)
    }
}
