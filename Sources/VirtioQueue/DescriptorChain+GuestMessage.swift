import MachineModel

extension DescriptorChain: GuestMessage {}
