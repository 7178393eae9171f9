"""Chunks add up to the message: in any grouping, as far as they have come."""

from example_model import example_model

from streamfold import AIMessageChunk, HumanMessage

model = example_model()
question = HumanMessage("Why is the sky blue?")

# A running sum is the message so far; each `+` costs what the chunk holds, not what it adds to.
chunks = []
full = AIMessageChunk()
for chunk in model.stream([question]):
    chunks.append(chunk)
    full = full + chunk
    print(f"{len(chunks):3}  {full.text[-60:]!r}")

# Any grouping gives the same: fold two halves in two processes, if you like.
middle = len(chunks) // 2
left = sum(chunks[:middle], AIMessageChunk())
right = sum(chunks[middle:], AIMessageChunk())
assert left + right == full

print("finish:", full.finish_reason)
print("usage: ", full.usage_metadata)

# A sum is a message: put it into the history and ask on.
answer = model.invoke([question, full, HumanMessage("Now in one sentence.")])
print("then:  ", answer.text)
