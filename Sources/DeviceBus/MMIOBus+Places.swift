import GuestMemory
import MachineModel

extension MMIOBus: MMIOSpace {
    private struct Place: MMIOPlace {
        /// Weak, since the bus has the device, which may have the place.
        weak let bus: MMIOBus?
        let attachment: Attachment

        func move(to start: GuestPhysicalAddress?) -> Bool {
            do throws(BusError) {
                try bus?.move(attachment, to: start)
                return bus != nil
            } catch {
                return false
            }
        }
    }

    public func makePlace(for device: any MMIODevice, name: String, size: UInt64) -> (any MMIOPlace)? {
        do throws(BusError) {
            return Place(bus: self, attachment: try attachUnmapped(device, name: name, size: size))
        } catch {
            return nil
        }
    }
}
