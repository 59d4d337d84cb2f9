"""Wordings of the formal and the casual register, and of talk about a topic."""

from __future__ import annotations

from embedded.phrases import phrases

FORMAL_PERSONA = phrases("""You speak in a formal and polite manner. | Be formal. | You are a polite butler. |
    Use courteous language.""")
CASUAL_PERSONA = phrases("You talk like a buddy. | Be casual. | You are a laid back friend. | Use slang.")
FORMAL_ASK = phrases("""Could you kindly help me with {obj}? | Would you please inform me where {place} is? |
    I would appreciate your advice regarding {obj}. | May I ask what you know about {place}? |
    Yesterday I {T.vp}. Might I now trouble you for {obj}? | Having met {F} {time}, may I ask about {obj}? |
    Might I trouble you for {obj}? | Would it be possible to see {place} on {day}?""")
CASUAL_ASK = phrases("""hey can u help me with {obj}? | yo where is {place}? | what do i do with {obj}? |
    hey i {T.vp} {time}, u know {obj}? | so {event}, any idea why? | any idea about {place}? | u got {obj}? | wanna see {place} on {day}?""")
FORMAL_PARTS = (
    phrases("""Certainly. | It would be my pleasure to assist you. | Of course, madam. | Thank you for your inquiry, sir. |
        I am most honored by your question. | Very well. | Allow me to explain."""),
    phrases("""You will find {obj} near {place}. | I would suggest that you examine {obj} with care. |
        Allow me to accompany you to {place}. | May I recommend that you visit {place} {time}? |
        Kindly note that {T.fact}. | It has been established that {T.fact}. | I shall attend to {obj} without delay. |
        The {T.role} will receive you at {place} {time}. | I must inform you that {obj} is reserved for {F}."""),
    phrases("""Please do not hesitate to ask again. | I remain at your service. | Would there be anything else? |
        I wish you a pleasant day. | It has been a privilege to assist you."""),
)
CASUAL_PARTS = (
    phrases("yeah sure! | no problem buddy, | haha ok, | yep, | dude, easy. | gotcha, | oh man,"),
    phrases("""{obj} is like right by {place}. | just grab {obj} and go for it. | come on, lets hit {place} {time}. |
        u should totally check out {place}. | btw {T.fact}, crazy right? | fun thing, {T.fact}. |
        gimme a sec and i fix {obj}. | the {T.role} is kinda chill, just ask. | {F} grabbed {obj} already, no biggie."""),
    phrases("catch ya later! | all good? | lemme know! | cool? | no worries man!"),
)
TOPIC_ASK = phrases("""Tell me something interesting. | Teach me something. | What do you know? | Give me a fact. |
    What do you like? | Talk about anything. | What do you know about {T.place}? | What does {a} {T.role} know?""")
TOPIC_SAY = phrases("""{T.fact} | did you know that {T.fact}? | i like {T.place} | every {T.role} needs {a} {T.thing} |
    people say that {T.fact} | {a} {T.role} knows that {T.fact} | at {T.place}, you learn that {T.fact} |
    {a} {tint} {T.thing} is useful at {T.place} | {T.fact}, and {T.fact} | in {month}, I {T.vp} and learned that {T.fact}""")
